"""Run a command that the kernel sends SIGTERM when its parent dies.

    python parent_death.py PARENT_PID COMMAND [ARGUMENT…]

Python runs this file by its path with `-I -S` (isolated, no site-packages), which takes some 20 ms; it
therefore imports the standard library alone. It replaces itself with the command, so the process id
that the parent knows is the command's. `preexec_fn` could do the same, and may deadlock where threads
exist.

PR_SET_PDEATHSIG fires when the *thread* that started the process ends, not its process: use it for
processes that the main thread starts. It survives exec, but not fork, so the processes that the command
starts are not covered.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
EXIT_NOT_FOUND = 127  # as a shell reports it
EXIT_ORPHAN = 128 + signal.SIGTERM


def ends_with_parent(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` as a child that ends with this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def die_with_parent(parent_pid: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent dies (Linux).

    Exits if the parent is dead already.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    # A parent that died before the call above sends no signal.
    if os.getppid() != parent_pid:
        sys.exit(EXIT_ORPHAN)


def main(parent_pid: str, *command: str) -> None:
    die_with_parent(int(parent_pid))  # SIGTERM: Redis writes its file to the disk before it ends
    try:
        os.execvp(command[0], command)  # noqa: S606 -- no shell is the point
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - imports none of ours
        sys.exit(EXIT_NOT_FOUND)


if __name__ == "__main__":
    main(*sys.argv[1:])
