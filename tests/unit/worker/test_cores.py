"""How processes divide the cores of a machine, read from a tree like the kernel's /sys and /proc."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.waiting import until

from maskq.process.stop_signal import StopSignal
from maskq_worker.process.cores import (
    CoreShare,
    Machine,
    divided,
    images_of,
    parsed_cpus,
    processes_of,
)
from maskq_worker.process.slots import Slot

GIB = 2**30
TWO_NODES = {"node0": "0-15,32-47", "node1": "16-31,48-63"}


@pytest.fixture(autouse=True)
def _sixty_four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


def tree(
    root: Path, nodes: Mapping[str, str] | None = None, *, memory: int = 512, **files: str
) -> Path:
    """nodes: the CPUs of each; memory: GiB; files: of the container's cgroup, `_` for a dot."""
    for name, cpus in (nodes or {}).items():
        folder = root / "sys/devices/system/node" / name
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(cpus + "\n")
    (root / "sys/fs/cgroup").mkdir(parents=True)
    for name, text in files.items():
        (root / "sys/fs/cgroup" / name.replace("_", ".")).write_text(text + "\n")
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(f"MemTotal:  {memory * 2**20} kB\nMemFree: 1 kB\n")
    return root


def shares(root: Path) -> list[CoreShare]:
    machine = Machine.read(root)
    return divided(machine, processes_of(machine, 2 * GIB))


def test_a_process_for_eight_cores_and_each_on_one_node(tmp_path: Path) -> None:
    node0, node1 = map(parsed_cpus, TWO_NODES.values())
    found = shares(tree(tmp_path, TWO_NODES))
    assert found == [CoreShare(8, node0)] * 4 + [CoreShare(8, node1)] * 4


@pytest.mark.parametrize(
    ("memory", "images"), [(None, 8), (7.5 * GIB, 8), (7.5 * GIB - 1, 1), (1, 1)]
)
def test_an_image_for_each_thread_where_the_memory_holds_them(
    memory: float | None, images: int
) -> None:
    """2 GiB for the model, 2 GiB for decoded images and half a GiB for each of seven more."""
    assert images_of(8, None if memory is None else int(memory), 2 * GIB) == images


def test_one_node_needs_no_pinning(tmp_path: Path) -> None:
    assert shares(tree(tmp_path, {"node0": "0-63"})) == [CoreShare(8)] * 8


def test_a_system_that_names_no_node_is_one(tmp_path: Path) -> None:
    assert shares(tree(tmp_path)) == [CoreShare(8)] * 8


def test_nodes_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    nodes = {f"node{number}": str(number) for number in range(64)}
    assert Machine.read(tree(tmp_path, nodes)).nodes == tuple(frozenset({n}) for n in range(64))


def test_a_node_with_memory_alone_counts_for_nothing(tmp_path: Path) -> None:
    assert len(Machine.read(tree(tmp_path, TWO_NODES | {"node2": ""})).nodes) == 2


@pytest.mark.parametrize("limit", ["300000 100000", "250000 100000"])
def test_a_container_s_share_counts_and_its_processes_stay_nowhere(
    tmp_path: Path, limit: str
) -> None:
    assert shares(tree(tmp_path, TWO_NODES, cpu_max=limit)) == [CoreShare(3)]


def test_a_container_without_a_limit_has_the_whole_machine(tmp_path: Path) -> None:
    limits = {"cpu_max": "max 100000", "memory_max": "max"}
    assert len(shares(tree(tmp_path, TWO_NODES, **limits))) == 8


def test_the_first_kind_of_cgroup_says_it_in_two_files(tmp_path: Path) -> None:
    root = tree(tmp_path, TWO_NODES)
    folder = root / "sys/fs/cgroup/cpu"
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert Machine.read(root).cores == 64
    (folder / "cpu.cfs_quota_us").write_text("400000\n")
    assert Machine.read(root).cores == 4


@pytest.mark.parametrize(("memory", "processes"), [(3, 1), (9, 2), (21, 4), (512, 8)])
def test_the_memory_bounds_the_number_of_processes(
    tmp_path: Path, memory: int, processes: int
) -> None:
    machine = Machine.read(tree(tmp_path, TWO_NODES, memory=memory))
    assert processes_of(machine, 2 * GIB) == processes


def test_a_container_s_memory_counts(tmp_path: Path) -> None:
    machine = Machine.read(tree(tmp_path, TWO_NODES, memory_max=str(8 * GIB)))
    assert processes_of(machine, 2 * GIB) == 2


def test_few_cores_make_one_process_a_node(tmp_path: Path) -> None:
    found = shares(tree(tmp_path, {"node0": "0-3", "node1": "4-63"}))
    assert found == [CoreShare(4, frozenset(range(4))), CoreShare(60, frozenset(range(4, 64)))]


def test_cpus_that_this_process_may_not_use_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 3})
    assert shares(tree(tmp_path, TWO_NODES)) == [CoreShare(3)]


@pytest.mark.parametrize(("processes", "threads"), [(1, 64), (3, 21), (101, 1)])
def test_an_uneven_number_of_processes_stays_nowhere(
    tmp_path: Path, processes: int, threads: int
) -> None:
    machine = Machine.read(tree(tmp_path, TWO_NODES))
    assert divided(machine, processes) == [CoreShare(threads)] * processes


def test_a_process_stays_on_its_cpus_and_its_parent_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    before = os.sched_getaffinity(0)
    one = frozenset({min(before)})
    code = f"import os; open({str(tmp_path / 'cpus')!r}, 'w').write(repr(os.sched_getaffinity(0)))"
    slot = Slot("pinned", [sys.executable, "-c", code], {}, cpus=one)
    slot.restart(StopSignal())
    until(lambda: not slot.running, within_s=30)
    assert slot.returncode == 0
    assert (tmp_path / "cpus").read_text() == repr(set(one))
    assert os.sched_getaffinity(0) == before
