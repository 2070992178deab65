"""Removing a job for good."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from maskq.client.flow import Flow, RunBlocking
from maskq.contract import JobRecord
from maskq.contract.places import S3Place
from maskq.errors import JobNotFound
from maskq.ledger import calls

if TYPE_CHECKING:
    from maskq.client.session import Session


def delete_job(session: Session, job_id: str) -> Flow[None]:
    """Record, outputs and uploaded image. Raises JobNotFound, StoreUnavailable."""
    status = yield calls.cancel(session.key_prefix, job_id)
    record: JobRecord | None = yield calls.get(session.key_prefix, job_id)
    if status is None or record is None:
        raise JobNotFound(job_id)
    places = {session.place_of(job_id)}
    if record.request.output_prefix:
        chosen = S3Place.parse(record.request.output_prefix, key_required=False)
        places.add(chosen / job_id)
    for place in places:
        yield RunBlocking(partial(session.objects.delete_under, place))
    yield calls.delete(session.key_prefix, job_id)
