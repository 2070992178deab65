"""What a process on a CPU gets of the machine."""

from __future__ import annotations

import os

import pytest

from maskq_worker.sizes import cpu_environment


def test_the_cores_are_shared_and_what_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [cpu_environment(n)["OMP_NUM_THREADS"] for n in (1, 2, 3, 9)] == ["8", "4", "2", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS" not in cpu_environment(2)
