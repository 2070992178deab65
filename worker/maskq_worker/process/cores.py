"""How the processes of a worker divide the cores of a machine without GPU.

`maskq worker` starts as many processes as suit the cores and the memory (`processes_of`), and gives
each a share of the cores (`divided`). On a machine with several NUMA nodes a process stays on one: the
kernel puts memory on the node of the process that first writes it, and another node's is slower.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CORES_A_PROCESS: Final = 8  # with more threads a forward of one image gains less from each
MODEL_BYTES: Final = 2 * 2**30  # DPT-Large in float32: 1.4 GB of weights, and a forward
FORWARD_BYTES: Final = 2**29  # of one more image: DPT-Large in float32, forward and mask
_CGROUP: Final = Path("sys/fs/cgroup")
_NODES: Final = Path("sys/devices/system/node")


@dataclass(frozen=True, slots=True)
class Machine:
    """What this process may use of its machine or container."""

    nodes: tuple[frozenset[int], ...]  # the CPUs by NUMA node; one node if the system names none
    cores: int  # that may compute at the same time: CPUs, or fewer by the container's limit
    memory_bytes: int | None  # None: not known

    @classmethod
    def read(cls, root: Path = Path("/")) -> Machine:
        """root: where `sys` and `proc` are."""
        cpus = _usable_cpus()
        nodes = [cpus & node for node in _nodes(root)]
        known = tuple(node for node in nodes if node)
        if frozenset().union(*known) != cpus:
            known = (cpus,)
        quota = _quota(root)
        cores = len(cpus) if quota is None else min(len(cpus), math.ceil(quota))
        return cls(known, max(1, cores), _memory_bytes(root))

    @property
    def is_limited(self) -> bool:
        """Whether the container may use less time than its CPUs have."""
        return self.cores < sum(map(len, self.nodes))


@dataclass(frozen=True, slots=True)
class CoreShare:
    """What one process gets."""

    threads: int
    cpus: frozenset[int] = frozenset()  # that it stays on; empty: those of its parent


def processes_of(machine: Machine, image_bytes: int) -> int:
    """How many processes suit the machine: one for each 8 cores, on several nodes one or more for
    each node, and no more than the memory holds.

    image_bytes: the memory of a process for images (MASKQ_MAX_DECODED_BYTES).
    """
    nodes = 1 if machine.is_limited else len(machine.nodes)
    smallest = machine.cores if nodes == 1 else min(map(len, machine.nodes))
    wanted = nodes * max(1, smallest // CORES_A_PROCESS)
    if machine.memory_bytes is not None:
        wanted = min(wanted, machine.memory_bytes // (MODEL_BYTES + image_bytes))
    if wanted > nodes:
        wanted -= wanted % nodes  # the same number on each node
    return max(1, wanted)


def images_of(threads: int, memory_bytes: int | None, image_bytes: int) -> int:
    """How many images a process computes at the same time: one for each of its threads, or one on all
    of them if its memory does not hold as many.

    memory_bytes: the process's share; None: not known. image_bytes: as of `processes_of`.
    """
    needed = MODEL_BYTES + image_bytes + (threads - 1) * FORWARD_BYTES
    return threads if memory_bytes is None or needed <= memory_bytes else 1


def divided(machine: Machine, processes: int) -> list[CoreShare]:
    """The share of each process. Processes stay on a node if every node gets the same number."""
    each, rest = divmod(processes, len(machine.nodes))
    if machine.is_limited or len(machine.nodes) == 1 or rest:
        return [CoreShare(max(1, machine.cores // processes))] * processes
    return [
        CoreShare(max(1, len(node) // each), node) for node in machine.nodes for _ in range(each)
    ]


@contextmanager
def staying_on(cpus: frozenset[int]) -> Iterator[None]:
    """Let processes that this thread starts in the block stay on these CPUs; empty: on its own."""
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    with suppress(OSError):  # the CPUs may have been taken away since
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _usable_cpus() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _nodes(root: Path) -> Iterator[frozenset[int]]:
    """The CPUs of each NUMA node."""
    folders = sorted((root / _NODES).glob("node[0-9]*"), key=lambda path: int(path.name[4:]))
    for folder in folders:
        if text := _text(folder / "cpulist"):
            yield parsed_cpus(text)


def parsed_cpus(text: str) -> frozenset[int]:
    """The CPUs of a list as the kernel writes it: `0-3,8`."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def _quota(root: Path) -> float | None:
    """The cores that the container may use at the same time (cgroup v2, then v1); None: no limit."""
    if limit := _numbers(_text(root / _CGROUP / "cpu.max")):
        return limit[0] / limit[1] if len(limit) == 2 else None
    quota = _numbers(_text(root / _CGROUP / "cpu/cpu.cfs_quota_us"))
    period = _numbers(_text(root / _CGROUP / "cpu/cpu.cfs_period_us"))
    return quota[0] / period[0] if quota and period else None


def _memory_bytes(root: Path) -> int | None:
    """The machine's memory, or the container's limit if that is less."""
    limits = [
        limit[0]
        for name in ("memory.max", "memory/memory.limit_in_bytes")
        if (limit := _numbers(_text(root / _CGROUP / name)))
    ]
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            limits.append(int(line.split()[1]) * 1024)
    return min(limits, default=None)


def _numbers(text: str) -> Sequence[int]:
    """The positive numbers in a text; what is no number (`max`, `-1`) means that there is no limit."""
    return [int(word) for word in text.split() if word.isdigit() and int(word) > 0]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
