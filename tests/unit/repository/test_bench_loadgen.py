"""The system that LoadGen drives, and its summary as it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from bench.loadgen.summary import Summary
from bench.loadgen.system import System, event_loop, run_in
from tests.support.waiting import until

from maskq import JobFailed
from maskq.contract import FailureCode
from maskq.testing import FakeAsyncClient, FakeService, image_bytes

SUMMARY = """\
================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 3.45
Result is : INVALID
  Performance constraints satisfied : NO
Recommendations:
 * Reduce target QPS to improve latency.

================================================
Additional Stats
================================================
90.00 percentile latency (ns)   : 1284000000
99.00 percentile latency (ns)   : 2463000000
"""


@dataclass(frozen=True)
class Sample:
    id: int
    index: int


@dataclass
class Query:
    """A query of some samples, sent to a fake service."""

    service: FakeService
    completed: list[int]

    def send(self, samples: list[Sample]) -> System:
        """Returns when every sample is complete."""
        uris = [f"s3://photos/{number}.png" for number in range(4)]
        for uri in uris:
            self.service.put_image(uri, image_bytes())
        with event_loop() as loop:
            client = FakeAsyncClient(self.service)
            system = System(client, loop, uris, self.completed.append)
            system.issue_query(samples)
            until(lambda: len(self.completed) >= len(samples))
            run_in(loop, client.close())
        return system


@pytest.fixture
def query() -> Query:
    return Query(FakeService(), [])


@pytest.mark.parametrize("samples", [[Sample(7, 2)], [Sample(7, 2), Sample(8, 2), Sample(9, 0)]])
def test_each_sample_of_a_query_completes_once(query: Query, samples: list[Sample]) -> None:
    system = query.send(samples)

    assert sorted(query.completed) == [sample.id for sample in samples]
    assert system.failures == []
    assert len(system.arrivals_s) == 1


@pytest.mark.parametrize("samples", [[Sample(7, 2)], [Sample(7, 2), Sample(8, 2), Sample(9, 0)]])
def test_a_failed_job_is_reported_and_loadgen_does_not_wait_for_it(
    query: Query, samples: list[Sample]
) -> None:
    query.service.fail_next(FailureCode.INTERNAL)

    system = query.send(samples)

    assert sorted(query.completed) == [sample.id for sample in samples]
    assert [type(failure) for failure in system.failures] == [JobFailed]


def test_loadgens_own_verdict_and_figures_are_read(tmp_path: Path) -> None:
    (tmp_path / "summary.txt").write_text(SUMMARY)

    summary = Summary.read(tmp_path / "summary.txt")

    assert summary.verdict == "INVALID"
    assert summary.rate == 3.45
    assert summary.percentile_s(99) == 2.463
    assert summary.advice == ("Reduce target QPS to improve latency.",)
