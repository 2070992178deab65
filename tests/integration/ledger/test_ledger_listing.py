"""jobs and delete: records by filter, page by page, none twice and none left out; and forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from support import ledger_harness
from support.ledger_harness import BROKEN, NOTHING_SWEPT, LedgerHarness

from maskq.contract import FailureCode, JobStatus
from maskq.ledger import calls
from maskq.ledger.calls import BatchMembership, Idempotency

harness = ledger_harness.harness


def ids(page: calls.Page) -> list[str]:
    return [record.id for record in page.records]


def pages(harness: LedgerHarness, *, limit: int, **wanted: Any) -> list[list[str]]:
    """What somebody is shown who turns all the pages."""
    page = harness.jobs(limit=limit, **wanted)
    found = [ids(page)]
    while page.cursor:
        page = harness.jobs(limit=limit, cursor=page.cursor, **wanted)
        found.append(ids(page))
        assert len(found) < 50, "the pages go round in circles"
    return found


def ended_jobs(harness: LedgerHarness, count: int, **options: Any) -> list[str]:
    """Jobs that ended, in this order, each in a millisecond of its own."""
    names = [harness.submit(**options) for _ in range(count)]
    for job_id in names:
        harness.cancel(job_id)
    at_times(harness, "ended", names)
    return names


def at_times(
    harness: LedgerHarness, name: str, job_ids: Iterable[str], *, apart_ms: int = 1
) -> None:
    """As if they had been submitted, or had ended, so far apart; 0: all in one millisecond."""
    for place, job_id in enumerate(job_ids):
        harness.redis.zadd(harness.key(name), {job_id: 1000 + place * apart_ms}, xx=True)


# --- newest first -------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart_ms", [1, 0])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
def test_records_are_listed_newest_first_page_by_page(
    harness: LedgerHarness, limit: int, apart_ms: int
) -> None:
    names = harness.submit_many(6)
    at_times(harness, "created", names, apart_ms=apart_ms)
    listed = pages(harness, limit=limit)
    assert [job_id for page in listed for job_id in page] == names[::-1]
    assert {len(page) for page in listed[:-1]} <= {limit}


def test_the_last_page_has_no_cursor(harness: LedgerHarness) -> None:
    names = harness.submit_many(3)
    page = harness.jobs(limit=4)
    assert (ids(page), page.cursor) == (names[::-1], "")
    assert harness.jobs(status=JobStatus.FAILED) == calls.Page((), "")


@pytest.mark.parametrize("apart_ms", [1, 0])
@pytest.mark.parametrize("trimmed", [False, True])
def test_a_cursor_survives_its_record(harness: LedgerHarness, apart_ms: int, trimmed: bool) -> None:
    """Deleted, or past its retention and trimmed, while somebody was reading."""
    names = harness.submit_many(6)
    at_times(harness, "created", names, apart_ms=apart_ms)
    page = harness.jobs(limit=3)
    last = ids(page)[-1]
    harness.cancel(last)
    if trimmed:
        assert harness.delete(last) == "deleted"
    else:
        harness.redis.delete(harness.key("job", last))
    rest = harness.jobs(limit=3, cursor=page.cursor)
    assert ids(rest) == names[2::-1]


def test_jobs_submitted_meanwhile_do_not_shift_the_pages(harness: LedgerHarness) -> None:
    names = harness.submit_many(4)
    at_times(harness, "created", names)
    page = harness.jobs(limit=2)
    harness.submit()
    assert ids(harness.jobs(limit=2, cursor=page.cursor)) == names[1::-1]


def test_records_past_their_retention_are_left_out(harness: LedgerHarness) -> None:
    names = harness.submit_many(3)
    harness.redis.delete(harness.key("job", names[1]))
    assert ids(harness.jobs()) == [names[2], names[0]]


def test_a_page_of_a_rare_kind_ends_and_its_cursor_goes_on(harness: LedgerHarness) -> None:
    """One call looks at a thousand records at most, so that Redis is never held long."""
    # Given two failed jobs, more than a thousand others apart
    first, token = harness.claimed_job()
    harness.fail(first, token)
    harness.submit_many(1100)
    second, token = harness.claimed_job()
    harness.fail(second, token)
    # When / Then
    page = harness.jobs(limit=10, status=JobStatus.FAILED)
    assert ids(page) == [second]
    rest = harness.jobs(limit=10, status=JobStatus.FAILED, cursor=page.cursor)
    assert (ids(rest), rest.cursor) == ([first], "")


# --- filters ------------------------------------------------------------------------------------------


def test_each_filter_shows_its_own_and_all_together_what_meets_all(harness: LedgerHarness) -> None:
    # Given jobs that differ from the one looked for in one respect each
    harness.serve("another")
    batch = {"batch": BatchMembership(batch_id="b", total=9)}
    wanted = {"model": "demo", "tenant": "ada", **batch}
    failed = harness.submit(**wanted)
    queued = harness.submit(**wanted)
    other_code = harness.submit(**wanted)
    other_model = harness.submit(**{**wanted, "model": "another"})
    other_tenant = harness.submit(**{**wanted, "tenant": "bob"})
    no_tenant = harness.submit(model="demo", **batch)
    no_batch = harness.submit(model="demo", tenant="ada")
    everything = {failed, queued, other_code, other_model, other_tenant, no_tenant, no_batch}
    for job_id in everything - {queued, other_code}:
        harness.fail(job_id, harness.claim(job_id), BROKEN)
    timeout = BROKEN.model_copy(update={"code": FailureCode.TIMEOUT})
    harness.fail(other_code, harness.claim(other_code), timeout)

    def shown(**filters: Any) -> set[str]:
        return set(ids(harness.jobs(**filters)))

    # When / Then
    assert shown() == everything
    assert shown(status=JobStatus.FAILED) == everything - {queued}
    assert shown(code=BROKEN.code) == everything - {queued, other_code}
    assert shown(model="demo") == everything - {other_model}
    assert shown(tenant="ada") == everything - {other_tenant, no_tenant}
    assert shown(batch_id="b") == everything - {no_batch}
    all_of_them = {"code": BROKEN.code, "model": "demo", "tenant": "ada", "batch_id": "b"}
    assert shown(status=JobStatus.FAILED, **all_of_them) == {failed}
    assert shown(status=JobStatus.FAILED, ended_since_ms=0, **all_of_them) == {failed}
    assert shown(tenant="nobody") == shown(status=JobStatus.EXPIRED) == set()


def test_a_code_is_also_why_the_last_attempt_was_given_back(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    harness.release(job_id, token, BROKEN)
    assert ids(harness.jobs(code=BROKEN.code, status=JobStatus.QUEUED)) == [job_id]


# --- by the time they ended ---------------------------------------------------------------------------


@pytest.mark.parametrize("apart_ms", [1, 0])
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_what_ended_is_listed_in_the_order_of_its_end(
    harness: LedgerHarness, limit: int, apart_ms: int
) -> None:
    names = ended_jobs(harness, 5)
    at_times(harness, "created", names[::-1])
    at_times(harness, "ended", names, apart_ms=apart_ms)
    harness.submit()
    listed = pages(harness, limit=limit, ended_since_ms=0)
    assert [job_id for page in listed for job_id in page] == names


def test_ended_since_begins_with_that_very_millisecond(harness: LedgerHarness) -> None:
    names = ended_jobs(harness, 5)
    assert ids(harness.jobs(ended_since_ms=1002)) == names[2:]
    assert ids(harness.jobs(ended_since_ms=1005)) == []


def test_the_time_of_an_end_is_its_record_s(harness: LedgerHarness) -> None:
    job_id = harness.submit()
    harness.cancel(job_id)
    ended_ms = harness.record(job_id).ended_ms
    assert ended_ms is not None
    assert ids(harness.jobs(ended_since_ms=ended_ms)) == [job_id]
    assert ids(harness.jobs(ended_since_ms=ended_ms + 1)) == []


def test_a_cursor_among_the_ended_survives_its_record_and_goes_on_with_later_ends(
    harness: LedgerHarness,
) -> None:
    """Somebody who follows what ends misses nothing and has nothing twice."""
    names = ended_jobs(harness, 4)
    page = harness.jobs(limit=2, ended_since_ms=0)
    assert ids(page) == names[:2]
    harness.delete(names[1])
    later = harness.submit()
    harness.cancel(later)
    rest = harness.jobs(limit=9, ended_since_ms=0, cursor=page.cursor)
    assert ids(rest) == [*names[2:], later]


# --- delete -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["succeeded", "failed", "canceled"])
def test_an_ended_job_is_forgotten_at_once(harness: LedgerHarness, end: str) -> None:
    # Given
    job_id, token = harness.claimed_job(tenant="ada", celery_head='{"properties":{"delivery_tag":')
    match end:
        case "succeeded":
            harness.succeed(job_id, token)
        case "failed":
            harness.fail(job_id, token)
        case "canceled":
            harness.cancel(job_id)
    # When
    assert harness.delete(job_id) == "deleted"
    # Then no listing names it, and no sweep misses it
    assert harness.raw(job_id) == {}
    for name in ("created", "ended", "answers", "leases", "deadlines"):
        assert harness.score(job_id, name) is None
    assert ids(harness.jobs()) == ids(harness.jobs(ended_since_ms=0)) == []
    assert harness.sweep() == NOTHING_SWEPT
    # And what was told of it stays told
    assert harness.kinds(job_id)[-1] == f"maskq.job.{end}"


def test_delete_sent_twice_finds_nothing_more_and_writes_nothing(harness: LedgerHarness) -> None:
    job_id = harness.submit()
    harness.cancel(job_id)
    assert harness.delete(job_id) == "deleted"
    before = harness.everything()
    assert harness.delete(job_id) == harness.delete("never") == "unknown"
    assert harness.everything() == before


def test_a_job_that_has_not_ended_is_not_deleted(harness: LedgerHarness) -> None:
    queued, (running, _) = harness.submit(), harness.claimed_job()
    delayed, token = harness.claimed_job()
    harness.release(delayed, token, delay_s=60)
    before = harness.everything()
    assert [harness.delete(one) for one in (queued, running, delayed)] == [
        "queued",
        "running",
        "queued",
    ]
    assert harness.everything() == before


def test_a_deleted_job_s_idempotency_key_is_free(harness: LedgerHarness) -> None:
    key = Idempotency(key="k", fingerprint="f")
    job_id = harness.submit(idempotency=key)
    harness.cancel(job_id)
    harness.delete(job_id)
    other = Idempotency(key="k", fingerprint="another request's")
    assert harness.submit(idempotency=other) != job_id


def test_a_batch_still_counts_the_deleted(harness: LedgerHarness) -> None:
    place = BatchMembership(batch_id="b", total=2)
    first, second = (harness.submit(batch=place) for _ in range(2))
    harness.cancel(first)
    harness.delete(first)
    harness.cancel(second)
    assert harness.kinds("b") == ["maskq.batch.completed"]
    progress = harness.ledger.run(calls.batch_progress("b"))
    assert progress == calls.BatchProgress(2, {JobStatus.CANCELED: 2}, (first, second))
