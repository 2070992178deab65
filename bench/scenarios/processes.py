"""What processes cost: seconds of the processor, resident memory, memory of the GPU (Linux)."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PARENT, _USER, _SYSTEM = 1, 11, 12  # fields of /proc/PID/stat after the command's name


def cpu_s(*pids: int) -> float:
    """Seconds of user and system time of all their threads; 10 ms is the smallest step."""
    return sum(int(_stat(pid)[i]) for pid in pids for i in (_USER, _SYSTEM)) / _TICKS_PER_S


def openmp_threads() -> list[int]:
    """Threads of this process that neither Python nor Rust started."""
    pythons = {thread.native_id for thread in threading.enumerate()}
    return [
        int(task.name)
        for task in Path("/proc/self/task").iterdir()
        if int(task.name) not in pythons and not _is_rusts(task)
    ]


def threads_s(threads: Iterable[int]) -> float:
    """Processor seconds of threads of this process, to some milliseconds where they run just now."""
    stats = [Path(f"/proc/self/task/{thread}/schedstat").read_text() for thread in threads]
    return sum(int(stat.split()[0]) for stat in stats) / 1e9


def _is_rusts(task: Path) -> bool:
    return (task / "comm").read_text().startswith("tokio")


def with_children(pid: int) -> list[int]:
    """The process and all below it."""
    parents = {int(path.name): path.name for path in Path("/proc").iterdir() if path.name.isdigit()}
    below: dict[int, list[int]] = {}
    for child in parents:
        try:
            below.setdefault(int(_stat(child)[_PARENT]), []).append(child)
        except OSError:
            continue  # it ended meanwhile
    family, todo = [], [pid]
    while todo:
        family.append(todo.pop())
        todo += below.get(family[-1], [])
    return family


def rss_mib(pids: Iterable[int]) -> float:
    """Resident memory now."""
    return sum(_status_kib(pid, "VmRSS") for pid in pids) / 1024


def peak_rss_mib(pids: Iterable[int]) -> float:
    """The largest it ever was, of each."""
    return sum(_status_kib(pid, "VmHWM") for pid in pids) / 1024


def gpu_mib() -> float | None:
    """Memory in use on all GPUs, None without one. torch gives none back, so the last is the peak."""
    if shutil.which("nvidia-smi") is None:
        return None
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    numbers = [float(word) for word in answer.stdout.split() if word.isdigit()]
    return sum(numbers) if numbers else None


def _stat(pid: int) -> list[str]:
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return text.rpartition(")")[2].split()  # a command's name may hold spaces


def _status_kib(pid: int, field: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split(f"{field}:")[1].split()[0])
