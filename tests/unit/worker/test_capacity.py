"""What a process on a CPU gets of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from maskq_worker.process import capacity, cpu
from maskq_worker.process.capacity import Capacity, capacity_of
from maskq_worker.process.cores import Machine
from maskq_worker.process.cpu import cpu_environment
from maskq_worker.settings import WorkerSettings


def test_the_cores_are_shared_and_what_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.Machine, "read", lambda: Machine((frozenset(range(8)),), 8, None))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [cpu_environment(n)["OMP_NUM_THREADS"] for n in (1, 2, 3, 9)] == ["8", "4", "2", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS" not in cpu_environment(2)


def test_what_the_settings_leave_open_is_chosen_here(monkeypatch: pytest.MonkeyPatch) -> None:
    eight = Machine((frozenset(range(8)),), 8, 64 * 2**30)
    monkeypatch.setattr(capacity.Machine, "read", lambda: eight)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    one = Capacity(1, concurrency=5, batches=1)
    assert capacity_of(WorkerSettings(), cuda=False) == Capacity(1, concurrency=18, batches=8)
    assert capacity_of(WorkerSettings(dtype="int8"), cuda=False) == one
    assert capacity_of(WorkerSettings(backend="transformers"), cuda=False) == one
    assert capacity_of(WorkerSettings(), cuda=True) == Capacity(16, concurrency=64, batches=2)
    assert capacity_of(WorkerSettings(concurrency=7), cuda=False) == Capacity(1, 7, batches=1)
    chosen = WorkerSettings(max_batch_size=3, concurrency=9)
    assert capacity_of(chosen, cuda=True) == Capacity(3, concurrency=9, batches=2)
    assert capacity_of(chosen, cuda=False) == Capacity(3, concurrency=9, batches=1)
    for threads, images in {
        "2": 2,
        " 2,1": 2,
        "0": 8,
        "all": 8,
    }.items():  # the last two say nothing
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert capacity_of(WorkerSettings(), cuda=False).batches == images
    little = replace(eight, memory_bytes=7 * 2**30)
    monkeypatch.setattr(capacity.Machine, "read", lambda: little)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert capacity_of(WorkerSettings(), cuda=False) == one


# Prints the kernel's flags of the memory that a large tensor lies in.
_FLAGS = """
import torch
tensor = torch.empty(64 * 2**20, dtype=torch.uint8)
inside = False
for line in open("/proc/self/smaps"):
    name, *rest = line.split()
    if not name.endswith(":"):
        low, high = (int(end, 16) for end in name.split("-"))
        inside = low <= tensor.data_ptr() + 4 * 2**20 < high
    elif inside and name == "VmFlags:":
        print(*rest)
"""


@pytest.mark.slow
def test_torch_s_large_tensors_lie_in_huge_pages() -> None:
    flags = subprocess.run(
        [sys.executable, "-c", _FLAGS],
        env=os.environ | cpu_environment(1),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "hg" in flags, "the kernel was not advised (MADV_HUGEPAGE); see proc_pid_smaps(5)"
