"""How many jobs a second one worker process does at most, where a GPU computes the forward.

`python -m bench.process_ceiling [--forward-ms 2.7] [--size 640x480]`

A worker process runs Python in one core's time, however many cores there are. Here forward and mask
are a sleep, and two cores play many: the worker has the first for itself; Redis, the S3 server and
the decoding processes share the second. Printed for MASKQ_DECODE_IN process and thread: jobs a
second, how much of each core they took, and how many jobs a whole core of the worker makes, where
the second core is the limit here. As many processes feed a GPU as its rate has of that. The last
row has two workers and no division of the cores.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench import report
from bench.scenarios import load, null, pictures, processes
from bench.scenarios.service import Service, running

# Where images are decoded, and the number of workers.
WAYS: Final = (("process", 1), ("thread", 1), ("process", 2))
JOBS: Final = 400  # a round
WARM_UP: Final = 100


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--forward-ms", type=float, default=2.7, help="an image; 2.7: H200")
    options.add_argument("--size", default="640x480", help="of the images, px")
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("it needs two cores")
    rows = [measured(chosen, decode_in, workers) for decode_in, workers in WAYS]
    print(report.table(rows))
    gpu_rate = 1e3 / chosen.forward_ms
    needed = math.ceil(gpu_rate / rows[0]["of a whole core"])
    print(f"the forward alone: {gpu_rate:.0f} images/s; {needed} processes feed it")
    print(f"written to {report.write('process-ceiling', {'options': vars(chosen), 'rows': rows})}")


def measured(chosen: argparse.Namespace, decode_in: str, workers: int) -> dict[str, Any]:
    width, height = map(int, chosen.size.split("x"))
    env = {"MASKQ_DECODE_IN": decode_in, "OMP_NUM_THREADS": "1"}
    options = {"workers": workers, "forward_ms": chosen.forward_ms, "env": env}
    with running("smallest", **options) as service:
        uris = pictures.stored(service, JOBS, size=(width, height))
        load.all_at_once(service, uris[:WARM_UP])
        with cores_of(service, alone=workers == 1):
            rounds = [_round(service, uris) for _ in range(chosen.rounds)]
    first, second, rates = (statistics.median(each) for each in zip(*rounds, strict=True))
    return {
        "decodes in": decode_in,
        "workers": workers,
        "jobs/s": rates,
        "worker's cores": first,
        "of a whole core": rates / first if workers == 1 else None,
        "other cores": second,
    }


def _round(service: Service, uris: Sequence[str]) -> tuple[float, float, float]:
    """Cores that the workers took, and everything else; jobs a second."""
    helping_before = _helping_s(service)
    drained = null.drain(service, uris)
    helping = _helping_s(service) - helping_before
    cost = drained.cost
    seconds = drained.seconds
    others = helping + cost.store + cost.redis + cost.client
    return (cost.worker - helping) / seconds, others / seconds, len(uris) / seconds


def _helping_s(service: Service) -> float:
    """Processor seconds of the processes that decode."""
    return processes.cpu_s(*{*service.worker_family} - {*service.pids})


@contextmanager
def cores_of(service: Service, *, alone: bool) -> Iterator[None]:
    """alone: the one worker has the first core, and nothing else has it."""
    before = os.sched_getaffinity(0)
    if alone:
        first, *others = sorted(before)
        stack = service.stack
        helping = {*service.worker_family} - {*service.pids}
        for pid in (stack.s3.child.pid, stack.redis.child.pid, os.getpid(), *helping):
            _stay_on(pid, set(others))
        for pid in service.pids:
            _stay_on(pid, {first})
    try:
        yield
    finally:
        _stay_on(os.getpid(), before)


def _stay_on(pid: int, cores: set[int]) -> None:
    """All threads of a process; threads that they start inherit it."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


if __name__ == "__main__":
    main()
