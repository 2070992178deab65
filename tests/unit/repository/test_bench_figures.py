"""What `make peers` and `python -m bench.cost` make of their measurements."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from bench.cost import Measured
from bench.peers import figures
from bench.peers.__main__ import DEFAULT, contender

FORWARDS_S = {"ours": [0.4, 0.5, 0.6], "transformers": [1.0, 1.0, 1.0]}


@pytest.fixture
def stack() -> Any:
    """What contenders read of a stack before they start."""
    return SimpleNamespace(
        s3=SimpleNamespace(bucket="photos"), redis=SimpleNamespace(url="redis://localhost:6379/0")
    )


def test_each_contender_has_a_redis_database_of_its_own(
    stack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # celery and celery:2 once shared a queue, so that three processes worked for each of them.
    monkeypatch.setenv("OMP_NUM_THREADS", "2")

    contenders = [contender(name, stack, "model", 4, n) for n, name in enumerate(DEFAULT, start=1)]

    urls = [one.setup.redis_url for one in contenders]
    assert len(set(urls)) == len(urls)
    assert urls[0] == "redis://localhost:6379/1"


def test_ratios_are_of_the_same_round() -> None:
    seen = {
        "maskq": figures.Seen(
            [2.0, 1.0, 4.0], [10.0, 30.0, 20.0], [500.0, 510.0, 505.0], [3.0, 2.0]
        ),
        "ray": figures.Seen([1.0, 0.5, 2.0], [40.0, 50.0, 60.0], [900.0, 1200.0, 1000.0], [9.0]),
    }

    rows = figures.rows(figures.summary(seen, FORWARDS_S))

    ours, ray = rows
    assert ours["times"] is None
    assert (ray["times"], ray["by round"], ray["maskq is"]) == (2.0, "2.00 2.00 2.00", "faster")
    assert (ray["CPU-ms/image"], ray["peak MiB"]) == (50.0, 1200)
    assert (ours["of the forward"], ray["of the forward"]) == (1.0, 1.0)
    assert (ours["first mask s"], ours["again"], ray["again"]) == (3.0, 2.0, None)


def test_starts_are_compared_by_their_medians() -> None:
    seen = {
        "maskq": figures.Seen(starts_s=[9.0, 3.0, 3.0]),
        "celery": figures.Seen(starts_s=[8.0, 6.0, 5.0]),
    }

    ours, celery = figures.start_rows(seen)

    assert (celery["first start s"], celery["later ones s"]) == (8.0, "6.0 5.0")
    assert (ours["median over maskq's"], celery["median over maskq's"]) == (1.0, 2.0)


def test_cost_is_hours_times_the_price_of_the_machine_that_was_measured() -> None:
    cpu = Measured("exact", 10.0, "Xeon", 2, "offline")
    gpu = Measured("half", 100.0, "H200", 16, "forward", gpu=True)

    on_cpu, on_gpu = cpu.row(0.5, 4.0), gpu.row(0.5, 4.0)

    assert on_cpu["hours a million"] == pytest.approx(27.78, rel=1e-3)
    assert on_cpu["core-hours"] == pytest.approx(2 * 27.78, rel=1e-3)
    assert on_cpu["cost a million"] == pytest.approx(13.89, rel=1e-3)
    assert on_gpu["cost a million"] == pytest.approx(11.11, rel=1e-3)
    assert on_gpu["core-hours"] is None
    assert cpu.row(None, None)["cost a million"] is None
