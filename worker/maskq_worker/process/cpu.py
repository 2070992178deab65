"""How a process on a CPU shares the machine: its cores, its memory, its turn."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

# As libgomp comes (300,000) its threads wait awake, for milliseconds, on cores that others need. In
# 0.1 ms they still meet the next task of a forward: one that is woken for each takes a sixth longer.
SPINS: Final = "20000"
_ENVIRONMENT: Final = {
    "GOMP_SPINCOUNT": SPINS,
    # Masks are made in every job's thread: with an arena of malloc's for each, memory grows.
    "MALLOC_ARENA_MAX": "1",
    # torch's large tensors in pages of 2 MiB: malloc gives their memory back, and a forward would take
    # it again by 4 KiB at a time, which is a sixth of the demo model's.
    "THP_MEM_ALLOC_ENABLE": "1",
    "TOKIO_WORKER_THREADS": "1",  # of obstore, for HTTP: two of them mostly wake each other
}


def cpu_environment(processes: int) -> dict[str, str]:
    """What one of several processes on a machine's CPU is started with, besides what is set already.

    Each would otherwise run as many threads as there are cores, and they would wait for one another.
    So each gets its share of the cores, and libraries that neither wait awake nor hoard.
    """
    threads = max(1, (os.cpu_count() or 1) // processes)
    share = _ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}
    return {name: value for name, value in share.items() if name not in os.environ}


def run_as_batch() -> None:
    """Let the kernel run this process as one that computes: who wakes waits until a core is free.

    Its threads hand one job on to each other, and each wakes the next while it still holds Python's
    lock. As the kernel runs processes otherwise, the one that is woken takes the core at once, only to
    wait for that lock: a tenth of a small job's processor time. Priority stays as it is.
    For threads that are started from now on; sched(7), SCHED_BATCH.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
