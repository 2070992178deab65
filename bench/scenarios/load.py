"""Ways to ask for jobs: all at once, one after another, on a schedule that waits for nobody."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.scenarios.service import Service
from bench.scenarios.stages import Ended
from maskq.contract import JobRecord, JobStatus
from maskq.ledger import calls

_CHUNK = 500  # records a round trip
_POLL_S = 0.2
_SUBMITTERS = 8  # threads: one slow answer delays no other arrival
_PATIENCE_S = 3600.0


def all_at_once(service: Service, uris: Sequence[str]) -> list[Ended]:
    """In one batch, waited for as a client would."""
    began_ms = time.time() * 1e3
    batch = service.client.submit_many(uris)
    for job in batch.as_completed(timeout=_PATIENCE_S):
        job.result()
    return [Ended(began_ms, record) for record in records(service, [job.id for job in batch.jobs])]


def one_by_one(service: Service, uris: Sequence[str]) -> list[Ended]:
    """Each is submitted when the one before has ended: light load."""
    ended = []
    for uri in uris:
        began_ms = time.time() * 1e3
        job = service.client.submit(uri)
        job.wait(timeout=_PATIENCE_S)
        ended += [Ended(began_ms, record) for record in records(service, [job.id])]
    return ended


def on_schedule(service: Service, uris: Sequence[str], arrivals_s: Sequence[float]) -> list[Ended]:
    """Open loop: job n is submitted `arrivals_s[n]` seconds from now, whatever became of the others."""
    began = time.time() + 0.1
    with ThreadPoolExecutor(_SUBMITTERS) as pool:
        submitted = []
        for uri, arrival_s in zip(uris, arrivals_s, strict=True):
            time.sleep(max(0.0, began + arrival_s - time.time()))
            submitted.append(pool.submit(service.client.submit, uri))
        ids = [job.result().id for job in submitted]
    await_end(service, ids)
    return [
        Ended((began + arrival_s) * 1e3, record)
        for arrival_s, record in zip(arrivals_s, records(service, ids), strict=True)
    ]


def await_end(service: Service, ids: Sequence[str]) -> None:
    """Wait without asking much: a call each 0.2 s, and one a job."""
    give_up_at = time.monotonic() + _PATIENCE_S
    for job_id in ids:
        while True:
            record = service.ledger.run(calls.get(job_id))
            if record is not None and record.ended:
                break
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"job {job_id} had not ended after {_PATIENCE_S:g} s")
            time.sleep(_POLL_S)


def await_batch(service: Service, batch_id: str) -> int:
    """As `await_end`, for a whole batch. Returns how many calls that were."""
    give_up_at, asked = time.monotonic() + _PATIENCE_S, 0
    while time.monotonic() < give_up_at:
        asked += 1
        # Past the last: how many have ended is asked for, not which.
        call = calls.batch_progress(batch_id, 2**31)
        progress = service.ledger.run(call)
        if progress is not None and sum(progress.counts.values()) >= progress.total:
            return asked
        time.sleep(_POLL_S)
    raise TimeoutError(f"batch {batch_id} had not ended after {_PATIENCE_S:g} s")


def records(service: Service, ids: Sequence[str]) -> list[JobRecord]:
    """Of jobs that have ended. Raises RuntimeError if one has not succeeded: its time means nothing."""
    found = list[JobRecord | None]()
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK]
        found += service.ledger.run_many([calls.get(job_id) for job_id in some])
    succeeded = [r for r in found if r is not None and r.status is JobStatus.SUCCEEDED]
    if len(succeeded) < len(ids):
        errors = [r.error.message for r in found if r is not None and r.error]
        said = errors[0] if errors else "their records are gone, or say nothing"
        raise RuntimeError(
            f"{len(ids) - len(succeeded)} of {len(ids)} jobs did not succeed: {said}"
        )
    return succeeded


def span_s(jobs: Sequence[Ended]) -> float:
    """From the first scheduled arrival to the last end."""
    last_ms = max(job.record.ended_ms or 0 for job in jobs)
    return (last_ms - min(job.scheduled_ms for job in jobs)) / 1e3
