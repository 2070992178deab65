"""Exec a command that the kernel signals when its parent dies.

    python parent_death.py PARENT_PID COMMAND [ARGUMENT…]

Run by its path with `-I -S` (isolated, no site): a start of some 20 ms, and nothing of the
environment is interpreted on the way. It stays the same process, so the pid that the parent knows
is the command's. In place of `preexec_fn`, which may deadlock where threads exist.

PR_SET_PDEATHSIG fires when the *thread* that spawned the process ends, not the process: use it for
what the main thread starts. It survives exec, but not fork: what the command itself starts is the
guard's business (child.py), and so is everything where there is no Linux.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
EXIT_NOT_FOUND = 127  # as a shell says it
EXIT_ORPHAN = 128 + signal.SIGTERM


def die_with_parent(parent_pid: int) -> None:
    """SIGTERM, not SIGKILL, at the parent's death: Redis syncs its file before it goes."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    # A parent that died before the call above sends no signal any more.
    if os.getppid() != parent_pid:
        sys.exit(EXIT_ORPHAN)


def main(parent_pid: str, *command: str) -> None:
    die_with_parent(int(parent_pid))
    try:
        os.execvp(command[0], command)  # noqa: S606 -- no shell is the point
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - imports none of ours
        sys.exit(EXIT_NOT_FOUND)


if __name__ == "__main__":
    main(*sys.argv[1:])
