"""The queue that a measured latency is compared with, and the parts that it is split into."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from bench.scenarios.simulation import by_size, poisson, replayed, simulate, typical
from bench.scenarios.stages import Ended, parts, percentile, rows

from maskq.contract import JobRecord

TIMINGS = {"fetch": 5.0, "decode": 7.5, "prepare": 2.5, "model": 60.0, "encode": 4.0, "store": 6.0}


def test_with_random_arrivals_the_mean_wait_is_that_of_the_textbook() -> None:
    # Given an M/D/1 queue: Poisson arrivals, one server, a constant service time
    service_s, load = 0.1, 0.8
    arrivals = poisson(load / service_s, 200_000, seed=3)

    # When it is simulated
    latencies = simulate(arrivals, lambda size: service_s)

    # Then the mean wait is Pollaczek and Khinchin's
    expected_s = load * service_s / (2 * (1 - load))
    assert statistics.fmean(latencies) - service_s == pytest.approx(expected_s, rel=0.03)


def test_arrivals_have_their_rate_and_are_the_same_for_a_seed() -> None:
    arrivals = poisson(5.0, 20_000, seed=1)
    assert len(arrivals) / arrivals[-1] == pytest.approx(5.0, rel=0.03)
    assert arrivals == sorted(arrivals) == poisson(5.0, 20_000, seed=1)
    assert arrivals != poisson(5.0, 20_000, seed=2)


def test_jobs_far_apart_wait_for_nobody() -> None:
    assert simulate([0.0, 10.0, 20.0], lambda size: 2.0, max_batch=8) == [2.0, 2.0, 2.0]


def test_one_by_one_they_wait_for_all_before_them() -> None:
    assert simulate([0.0, 0.0, 1.0], lambda size: 2.0) == [2.0, 4.0, 5.0]


def test_a_free_server_takes_what_waits_and_no_more_than_a_batch() -> None:
    # Given a batch of b that takes 1 + b seconds, and at most 3 images in it
    sizes: list[int] = []

    def service(size: int) -> float:
        sizes.append(size)
        return 1.0 + size

    # When one comes, and while it is in, five more
    latencies = simulate([0.0, 0.5, 0.6, 1.0, 1.5, 2.0], service, max_batch=3)

    # Then it runs alone until 2, three run until 6, the last two until 9
    assert sizes == [1, 3, 2]
    assert latencies == pytest.approx([2.0, 5.5, 5.4, 5.0, 7.5, 7.0])


def test_who_comes_in_the_moment_a_batch_begins_is_in_it() -> None:
    assert simulate([0.0, 1.0, 1.0], lambda size: 1.0, max_batch=2) == [1.0, 1.0, 1.0]


def test_with_two_servers_an_image_waits_for_the_one_that_is_free_first() -> None:
    latencies = simulate([0.0, 0.0, 0.5, 1.0, 9.0], lambda size: 2.0, servers=2)
    assert latencies == [2.0, 2.0, 3.5, 3.0, 2.0]


def test_a_typical_time_is_a_median_or_lies_between_two() -> None:
    service = typical(by_size([(1, 0.1), (1, 0.9), (1, 0.2), (4, 0.8), (2, 0.4)]))
    assert [service(size) for size in (1, 2, 3, 4, 9)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


def test_replayed_times_come_in_their_order_and_again() -> None:
    service = replayed(by_size([(1, 0.1), (4, 0.8), (1, 0.3)]))
    assert [service(size) for size in (1, 4, 1, 1)] == [0.1, 0.8, 0.3, 0.1]
    assert service(2) == pytest.approx(0.4)  # of no batch: between the medians, 0.2 and 0.8


def test_without_a_batch_there_is_no_service_time() -> None:
    with pytest.raises(ValueError, match="no batch was measured"):
        typical({})


def test_the_parts_of_a_job_add_up_to_the_whole() -> None:
    # Given a job meant for 1000.5, recorded at 1002, claimed at 1010, ended at 1100
    job = ended(TIMINGS)

    # Then what no stage has is the rest
    split = parts(job)
    assert split["submit"] == 1.5
    assert split["queue"] == 8.0
    assert split["rest"] == 90.0 - sum(TIMINGS.values())
    assert sum(split.values()) == pytest.approx(job.latency_ms) == 99.5


def test_times_within_the_model_are_not_counted_twice() -> None:
    split = parts(ended(TIMINGS | {"forward": 50.0, "mask": 8.0}))
    assert sum(split.values()) == 99.5
    assert "forward" not in split


def test_a_failed_job_has_no_stages() -> None:
    with pytest.raises(ValueError, match="only a succeeded one"):
        parts(Ended(0.0, record(status="failed", result=None)))


def test_the_means_of_a_table_add_up() -> None:
    table = rows([ended(TIMINGS), ended({"fetch": 50.0, "model": 30.0})])
    means = {row["stage"]: row["mean ms"] for row in table}
    assert means.pop("whole") == 99.5 == pytest.approx(sum(means.values()))
    assert [*means][-1] == "rest"


@pytest.mark.parametrize(
    ("count", "q", "expected"),
    [(100, 50, 50), (100, 99, 99), (99, 99, None), (1000, 99.9, 999), (999, 99.9, None), (9, 0, 1)],
)
def test_a_percentile_is_a_value_that_came_if_there_were_enough(
    count: int, q: float, expected: float | None
) -> None:
    assert percentile([float(n) for n in range(count, 0, -1)], q) == expected


def ended(timings: dict[str, float]) -> Ended:
    return Ended(
        1000.5, record(result={"width": 1, "height": 1, "model": "m", "timings_ms": timings})
    )


def record(*, status: str = "succeeded", result: dict[str, Any] | None) -> JobRecord:
    return JobRecord.model_validate(
        {
            "id": "a",
            "status": status,
            "model": "m",
            "priority": "normal",
            "request": {"image_uri": "s3://bucket/key"},
            "max_attempts": 3,
            "created_ms": 1002,
            "started_ms": 1010,
            "ended_ms": 1100,
            "result": result,
        }
    )
