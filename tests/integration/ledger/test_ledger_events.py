"""Events: one for each state a job enters, and none that is lost unnoticed."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from support import ledger_harness
from support.ledger_harness import BROKEN, RESULT, LedgerHarness

from maskq.contract import TERMINAL, Event
from maskq.ledger import calls
from maskq.ledger.calls import BatchMembership, StreamEnds
from maskq.ledger.prelude import prelude
from maskq.ledger.scripts import shared_text

harness = ledger_harness.harness

KEPT = 100_000
NODE = 100  # entries the server trims at once, at most
FILL = """
for n = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', 'event', '{}') end
return redis.call('XLEN', KEYS[1])
"""


def read(harness: LedgerHarness, cursor: str = "0") -> list[Event]:
    return harness.ledger.run(calls.read_events(cursor, block_ms=1, count=1000))


def ends(harness: LedgerHarness) -> StreamEnds:
    return harness.ledger.run(calls.stream_ends())


def finish_somehow(harness: LedgerHarness, how: str, **options: object) -> str:
    job_id, token = harness.claimed_job(**options)
    match how:
        case "succeeded":
            harness.succeed(job_id, token)
        case "failed":
            harness.fail(job_id, token)
        case "canceled":
            harness.cancel(job_id)
        case "expired":
            harness.release(job_id, token)
            harness.time_is_up(job_id)
            harness.sweep()
    assert harness.record(job_id).status == how
    return job_id


def test_an_event_has_the_fields_of_cloudevents(harness: LedgerHarness) -> None:
    before = time.time()
    job_id = harness.submit()
    (event,) = harness.events()
    assert event["time"].endswith("Z")
    assert event.pop("timestamp") == event.pop("time")  # a payload of Standard Webhooks as well
    assert event == {
        "specversion": "1.0",
        "id": f"{job_id}:queued:0",
        "source": f"maskq/{harness.prefix}",
        "type": "maskq.job.queued",
        "subject": job_id,
        "datacontenttype": "application/json",
        "data": {
            "job_id": job_id,
            "status": "queued",
            "attempt": 0,
            "source": "s3://photos/a.png",
        },
    }
    (read_back,) = read(harness)
    assert read_back.time == datetime.fromtimestamp(harness.record(job_id).created_ms / 1000, UTC)
    assert abs(read_back.time.timestamp() - before) < 60


def test_a_result_travels_in_its_event_as_the_worker_wrote_it(harness: LedgerHarness) -> None:
    metadata = {"k": 'ü"\\', "n": "1"}
    job_id = finish_somehow(harness, "succeeded", metadata=metadata)
    data = harness.events(job_id)[-1]["data"]
    assert data == {
        "job_id": job_id,
        "status": "succeeded",
        "attempt": 1,
        "source": "s3://photos/a.png",
        "batch_id": None,
        "metadata": metadata,
        "result": RESULT.model_dump(mode="json", exclude_defaults=True),
    }


def test_a_reason_travels_in_its_event(harness: LedgerHarness) -> None:
    job_id = finish_somehow(harness, "failed", batch=BatchMembership(batch_id="b-1", total=9))
    data = harness.events(job_id)[-1]["data"]
    assert data["error"] == BROKEN.model_dump(mode="json")
    assert data["batch_id"] == "b-1"


@pytest.mark.parametrize("how", sorted(status.value for status in TERMINAL))
def test_an_ended_job_has_one_terminal_event_the_last_one(harness: LedgerHarness, how: str) -> None:
    job_id = finish_somehow(harness, how)
    # When everything that may come late comes
    harness.cancel(job_id)
    harness.try_claim()
    harness.try_claim(job_id=job_id)
    harness.settle()
    # Then
    terminal = [k for k in harness.kinds(job_id) if k.rpartition(".")[2] in {*TERMINAL}]
    assert terminal == [f"maskq.job.{how}"] == harness.kinds(job_id)[-1:]
    assert harness.events(job_id)[-1]["id"] == f"{job_id}:{how}"


def test_ids_of_events_are_unique_through_every_retry(harness: LedgerHarness) -> None:
    job_id = harness.submit(max_attempts=3, batch=BatchMembership(batch_id="b-1", total=1))
    for _ in range(2):
        harness.release(job_id, harness.claim(job_id))
    harness.claim(job_id)
    harness.lease_runs_out(job_id)
    harness.sweep()
    assert harness.try_claim().job_id == job_id
    harness.succeed(job_id, harness.claim(job_id, exclusive=True))
    events = harness.events()
    assert len({event["id"] for event in events}) == len(events) == 10
    kinds = [event["type"].rpartition(".")[2] for event in events]
    assert kinds == ["queued", "running"] * 4 + ["succeeded", "completed"]


def test_a_batch_s_event_comes_once_with_its_counts(harness: LedgerHarness) -> None:
    # Given
    place = BatchMembership(batch_id="b-1", total=5)
    hows = ["succeeded", "failed", "canceled", "expired"]
    jobs = [finish_somehow(harness, how, batch=place) for how in hows]
    assert harness.events("b-1") == []
    # When
    jobs.append(finish_somehow(harness, "succeeded", batch=place))
    for job_id in jobs:
        harness.cancel(job_id)
    harness.settle()
    # Then
    (event,) = harness.events("b-1")
    assert (event["id"], event["type"]) == ("b-1:completed", "maskq.batch.completed")
    assert event["data"] == {
        "batch_id": "b-1",
        "total": 5,
        "succeeded": 2,
        "failed": 1,
        "canceled": 1,
        "expired": 1,
    }
    progress = harness.ledger.run(calls.batch_progress("b-1"))
    assert progress is not None
    assert progress.ended == tuple(jobs)
    assert harness.events()[-1] == event


def test_the_time_of_an_event_is_a_date_of_the_calendar(harness: LedgerHarness) -> None:
    """The scripts count days themselves: leap years, centuries, the ends of months."""
    shared = shared_text()
    code = prelude(shared) + shared + "return iso_time(tonumber(ARGV[2]))"
    for text in (
        "1970-01-01T00:00:00.000+00:00",
        "1999-12-31T23:59:59.999+00:00",
        "2000-02-29T12:00:00.001+00:00",
        "2024-02-29T23:59:59.000+00:00",
        "2024-03-01T00:00:00.000+00:00",
        "2025-02-28T23:59:59.999+00:00",
        "2026-12-31T01:02:03.004+00:00",
        "2100-02-28T23:59:59.999+00:00",
        "2100-03-01T00:00:00.000+00:00",
    ):
        moment = datetime.fromisoformat(text)
        milliseconds = round(moment.timestamp() * 1000)
        shown = harness.redis.eval(code, 0, harness.prefix, milliseconds)
        assert datetime.fromisoformat(shown) == moment
        assert shown == text.replace("+00:00", "Z")


def test_events_are_read_after_a_cursor(harness: LedgerHarness) -> None:
    jobs = [harness.submit() for _ in range(4)]
    events = read(harness)
    assert [event.subject for event in events] == jobs
    assert [event.subject for event in read(harness, events[1].cursor)] == jobs[2:]
    assert read(harness, events[-1].cursor) == []


def test_reading_waits_for_the_first_event_no_longer_than_asked(harness: LedgerHarness) -> None:
    started = time.monotonic()
    call = calls.read_events("$", block_ms=100)
    assert harness.ledger.run(call) == []
    assert 0.05 < time.monotonic() - started < 30


def test_a_stream_without_events_has_no_ends(harness: LedgerHarness) -> None:
    assert ends(harness) == StreamEnds("0-0", "0-0")


def test_an_untrimmed_stream_has_lost_nothing(harness: LedgerHarness) -> None:
    for _ in range(3):
        harness.submit()
    assert ends(harness) == StreamEnds(read(harness)[-1].cursor, "0-0")


def order(cursor: str) -> tuple[int, int]:
    milliseconds, _, sequence = cursor.partition("-")
    return int(milliseconds), int(sequence)


def test_the_stream_is_trimmed_and_what_was_trimmed_can_be_told(harness: LedgerHarness) -> None:
    # Given a stream as long as may be
    assert harness.redis.eval(FILL, 1, harness.key("events"), KEPT) == KEPT
    first = harness.redis.xrange(harness.key("events"), count=1)[0][0]
    assert ends(harness).trimmed == "0-0"
    # When
    for _ in range(NODE + 1):
        harness.submit()
    # Then at most a node more than that is kept
    assert KEPT <= harness.redis.xlen(harness.key("events")) <= KEPT + NODE
    kept = harness.redis.xrange(harness.key("events"), count=1)[0][0]
    trimmed = order(ends(harness).trimmed)
    assert order(first) <= trimmed < order(kept)
    # And no place is left between the two: whoever has read up to there has lost nothing
    ms, sequence = order(kept)
    assert trimmed == ((ms, sequence - 1) if sequence else (ms - 1, 2**64 - 1))


@pytest.mark.parametrize("first", ["5-0", "5-1", "5-7"])
def test_the_trimmed_end_lies_just_before_the_first_event_kept(
    harness: LedgerHarness, first: str
) -> None:
    events = harness.key("events")
    harness.redis.xadd(events, {"event": "{}"}, id="4-9")
    harness.redis.xadd(events, {"event": "{}"}, id=first)
    harness.redis.xadd(events, {"event": "{}"}, id="6-0")
    harness.redis.xtrim(events, maxlen=2, approximate=False)
    before = {"5-0": "4-18446744073709551615", "5-1": "5-0", "5-7": "5-6"}
    assert ends(harness) == StreamEnds("6-0", before[first])
    harness.redis.xtrim(events, maxlen=0, approximate=False)
    assert ends(harness) == StreamEnds("6-0", "6-0")
