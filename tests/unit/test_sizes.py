"""What a process on a CPU gets of the machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from maskq_worker.sizes import cpu_share

BLOCK = 64 * 2**20  # bytes, as large as what a network's layer takes
TIMES = 10
PROGRAM = f"""
import resource, threading

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    bytearray({BLOCK})
    before = faults()
    for _ in range({TIMES}):
        bytearray({BLOCK})
    print(faults() - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def test_the_cores_are_shared_and_what_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [cpu_share(n)["OMP_NUM_THREADS"] for n in (1, 2, 3, 9)] == ["8", "4", "2", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS" not in cpu_share(2)


@pytest.mark.skipif(sys.platform != "linux", reason="how glibc takes memory")
def test_memory_that_was_given_back_is_taken_again_without_a_page_fault() -> None:
    assert faults(cpu_share(1)) < 100
    assert faults({}) > TIMES * BLOCK / 4096 / 2  # else there is nothing to be gained any more


def faults(environment: dict[str, str]) -> int:
    """Page faults of a thread that takes the same block again and again."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return int(ran.stdout)
