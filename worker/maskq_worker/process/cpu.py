"""How processes on a CPU share the machine: threads, memory, scheduling."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

from maskq_worker.process.cores import CoreShare, Machine, divided

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
    """Variables for each of several processes that divide this machine's cores equally.

    Otherwise each process would run a thread per core, and the threads would wait for one another.
    Variables that are set already are left out.
    """
    return share_environment(divided(Machine.read(), processes)[-1])


def share_environment(share: CoreShare) -> dict[str, str]:
    """Variables for a process with this share: its libraries neither spin nor keep memory.

    Variables that are set already are left out.
    """
    variables = _ENVIRONMENT | {"OMP_NUM_THREADS": str(share.threads)}
    return {name: value for name, value in variables.items() if name not in os.environ}


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
