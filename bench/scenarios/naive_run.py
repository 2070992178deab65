"""The naive Celery task under the load of `null`, on the same Redis and S3 server.

Its client is a process of its own, `python -m bench.scenarios.naive_run`: URIs on stdin, figures as
JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.scenarios.processes import cpu_s, with_children
from bench.scenarios.service import ROOT, Service
from maskq.contract.locations import S3Uri
from maskq_standalone.children.child import Child

_PATIENCE_S = 600.0
_WORKER = (
    sys.executable, "-m", "celery", "--workdir", str(ROOT), "-A", "bench.scenarios.naive", "worker",
    "--pool", "prefork", "--concurrency", "1", "--loglevel", "WARNING",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Naive:
    jobs_a_second: float
    cpu_s: float  # of both its processes, for all jobs
    store_cpu_s: float
    client_submit_cpu_ms_a_job: float
    client_wait_cpu_ms_a_job: float


def measure(service: Service, uris: Sequence[str]) -> Naive:
    """One process that works, beside the parent that Celery's prefork has."""
    worker = Child("naive", _WORKER, log=service.folder / "naive.log", env=dict(os.environ))
    worker.start()
    try:
        done = subprocess.run(
            [
                sys.executable, "-m", "bench.scenarios.naive_run",
                "--worker", str(worker.pid), "--store", str(service.stack.s3.child.pid),
            ],
            input="\n".join(uris), cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    finally:
        worker.stop()
    return Naive(**json.loads(done.stdout))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--worker", type=int, required=True, help="process id")
    options.add_argument("--store", type=int, required=True, help="process id")
    chosen = options.parse_args()
    print(json.dumps(asdict(run(sys.stdin.read().split(), chosen.worker, chosen.store))))


def run(uris: Sequence[str], worker: int, store: int) -> Naive:
    _ask(uris[0], 0).get(timeout=_PATIENCE_S)
    family = with_children(worker)
    cpu, store_cpu, began = cpu_s(*family), cpu_s(store), time.perf_counter()
    client_cpu = [time.process_time()]
    answers = [_ask(uri, number) for number, uri in enumerate(uris)]
    client_cpu.append(time.process_time())
    for answer in answers:
        answer.get(timeout=_PATIENCE_S)
    client_cpu.append(time.process_time())
    jobs, took = len(uris), time.perf_counter() - began
    return Naive(
        jobs_a_second=jobs / took,
        cpu_s=cpu_s(*family) - cpu,
        store_cpu_s=cpu_s(store) - store_cpu,
        client_submit_cpu_ms_a_job=1e3 * (client_cpu[1] - client_cpu[0]) / jobs,
        client_wait_cpu_ms_a_job=1e3 * (client_cpu[2] - client_cpu[1]) / jobs,
    )


def _ask(uri: str, number: int) -> Any:
    from bench.scenarios.naive import segment  # it reads the environment of a stack

    place = S3Uri.parse(uri)
    return segment.delay(place.bucket, place.key, f"bench/naive/{number}/mask.png")


if __name__ == "__main__":
    main()
