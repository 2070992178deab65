"""How processes on a CPU share the machine: threads, memory, scheduling."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

# By default (300,000) libgomp's idle threads spin for milliseconds on cores that others need. With this
# value they spin for 0.1 ms, long enough for the next task of a forward. Without spinning, a forward
# takes a sixth longer, since its threads are woken for each task.
SPINS: Final = "20000"
_ENVIRONMENT: Final = {
    "GOMP_SPINCOUNT": SPINS,
    # Every job's thread computes masks. With a malloc arena for each thread, memory grows.
    "MALLOC_ARENA_MAX": "1",
    # Pages of 2 MiB for torch's large tensors: malloc returns their memory, and each forward maps it
    # again. With pages of 4 KiB that takes a sixth of the demo model's forward.
    "THP_MEM_ALLOC_ENABLE": "1",
    "TOKIO_WORKER_THREADS": "1",  # of obstore, for HTTP: two would mostly wake each other
}


def cpu_environment(processes: int) -> dict[str, str]:
    """Variables for one of several processes on a machine's CPU, but for those that are set already.

    Otherwise each process would run a thread per core, and the threads would wait for one another. With
    these each uses its share of the cores, and its libraries neither spin nor keep memory.
    """
    threads = max(1, (os.cpu_count() or 1) // processes)
    share = _ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}
    return {name: value for name, value in share.items() if name not in os.environ}


def run_as_batch() -> None:
    """Have the kernel schedule this process as batch work (SCHED_BATCH, sched(7)).

    The threads of a job wake each other while they hold the GIL. By default the kernel lets the thread
    that wakes up preempt the other, only to wait for the GIL; that costs a tenth of a small job's
    processor time. As batch work it waits until a core is free. The priority does not change. This
    applies to threads that start from now on.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
