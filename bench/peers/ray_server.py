"""The Ray Serve peer: `python -m bench.peers.ray_server`.

Its asynchronous inference: a deployment that consumes the tasks of a Celery queue. No HTTP proxy and no
dashboard run, since nobody asks them for anything.
"""

from __future__ import annotations

import os
import signal
import tempfile
from typing import Any

import ray
from ray import serve
from ray.serve.schema import CeleryAdapterConfig, TaskProcessorConfig
from ray.serve.task_consumer import task_consumer, task_handler

from bench.peers.segment import Segment
from bench.peers.setup import Setup

QUEUE = "segment"
OBJECT_STORE_BYTES = (
    200 * 2**20
)  # tasks carry keys: Ray's default of 30 % of the memory is of no use


def deployment(setup: Setup) -> Any:
    broker = CeleryAdapterConfig(broker_url=setup.redis_url, backend_url=setup.redis_url)
    config = TaskProcessorConfig(queue_name=QUEUE, adapter_config=broker)

    # One task at a time in each replica: its forward uses all of the replica's cores.
    @serve.deployment(
        num_replicas=setup.processes,
        max_ongoing_requests=1,
        ray_actor_options={"num_cpus": setup.threads},
    )
    @task_consumer(task_processor_config=config)
    class Segmentation:
        def __init__(self) -> None:
            self.segment = Segment(setup)

        @task_handler(name="segment")
        def mask_of(self, key: str) -> str:
            """Returns the mask's key."""
            return self.segment([key])[0]

    return Segmentation


def main() -> None:
    setup = Setup.from_environment()
    # Blocked here, and in the threads started from now on, so that only sigwait takes it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    # Paths of Unix sockets are short, so the folder is not in the stack's.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        ray.init(
            num_cpus=os.cpu_count(),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=folder,
        )
        try:
            serve.start(proxy_location="Disabled")
            serve.run(deployment(setup).bind(), route_prefix=None)
            signal.sigwait([signal.SIGTERM])
        finally:
            serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main()
