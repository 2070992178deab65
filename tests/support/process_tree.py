"""A process and those it started: who they are, and how much memory they take together."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


def descendants(pid: int) -> list[int]:
    """Of the process, through all generations; of all its threads."""
    found: list[int] = []
    with suppress(*_GONE):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found


def of_session(leader: int) -> set[int]:
    """The processes of a session, in whichever process group, that have not ended."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(*_GONE):
            state, _, _, session, *_ = stat.read_text().rpartition(")")[2].split()
            if int(session) == leader and state != "Z":
                found.add(int(stat.parent.name))
    return found


def alive(pids: Iterable[int]) -> set[int]:
    """Those that run; a zombie only waits for its parent."""
    return {pid for pid in pids if _state_of(pid) not in ("", "Z")}


def _state_of(pid: int) -> str:
    with suppress(*_GONE):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def command_of(pid: int) -> list[str]:
    with suppress(*_GONE):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []


def memory_of(pid: int) -> int:
    """Bytes of a process, what it shares counted in parts (PSS)."""
    with suppress(*_GONE):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


class PeakMemory:
    """Looks ten times a second, until the block ends; `.start` and `.peak` are bytes."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.start = self.peak = self._now()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.1):
            self.peak = max(self.peak, self._now())

    def _now(self) -> int:
        return sum(map(memory_of, [self._pid, *descendants(self._pid)]))
