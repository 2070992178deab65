"""`python -m bench.scenarios.empty_task`: a worker with maskq's Celery settings whose task is empty.

The messages are tickets, since a worker refuses any other. They are sent first; printed is what the
worker then made of them, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
import warnings
from typing import Any

from celery.platforms import SecurityWarning

from maskq.ledger import Ledger, calls, keys
from maskq_worker.broker.app import make_app
from maskq_worker.broker.bootstep import ModelStep
from maskq_worker.process.capacity import capacity_of
from maskq_worker.settings import WorkerSettings

_MODEL = "empty"


class Progress:
    """Counts tasks; ends the worker after the last."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._done = 0
        self._lock = threading.Lock()
        self._began = (0.0, 0.0)
        self.figures: dict[str, float] = {}

    def step(self, _: str) -> None:
        """In the place of maskq.run, which gets a model's name."""
        with self._lock:
            self._done += 1
            if self._done == 1:
                self._began = time.perf_counter(), time.process_time()
            if self._done == self._wanted:
                took = time.perf_counter() - self._began[0]
                cpu_s = time.process_time() - self._began[1]
                self.figures = {"jobs_a_second": (self._wanted - 1) / took, "cpu_s": cpu_s}
                os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, required=True)
    jobs = options.parse_args().jobs
    warnings.filterwarnings("ignore", category=SecurityWarning)
    settings = WorkerSettings.load()
    app: Any = make_app(settings, _MODEL, capacity_of(settings, cuda=False))
    app.steps["worker"].discard(ModelStep)
    app.conf.worker_redirect_stdouts = False  # the figures go there
    progress = Progress(jobs)
    app.conf.include = ()  # not maskq's own tasks
    app.task(progress.step, name=keys.TASK_RUN, ignore_result=True)
    ledger = Ledger.of(settings)
    ledger.run_many([calls.send_ticket(_MODEL)] * jobs)
    ledger.close()
    worker = app.Worker(
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    print(json.dumps(progress.figures))


if __name__ == "__main__":
    main()
