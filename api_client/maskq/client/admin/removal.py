"""Deleting one job, or all jobs of a tenant."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from maskq.client.operations.flow import Flow, RunBlocking
from maskq.contract import JobRecord
from maskq.contract.options import TENANT
from maskq.errors import InvalidRequest, JobNotFound, StoreRefused
from maskq.ledger import calls

if TYPE_CHECKING:
    from maskq import s3
    from maskq.client.direct.access import DirectAccess


def delete_job(access: DirectAccess, job_id: str) -> Flow[None]:
    """Delete a job's record, outputs and uploaded image. Raises JobNotFound, StoreUnavailable."""
    status = yield calls.cancel(job_id)
    record: JobRecord | None = yield calls.get(job_id)
    if status is None or record is None:
        raise JobNotFound(job_id)
    storage = access.layout.of(record)
    yield RunBlocking(lambda: access.objects.delete_of(storage))
    yield calls.delete(record.id)


@dataclass(frozen=True, slots=True)
class Erased:
    """The numbers of a tenant's jobs and objects that were deleted, and that remain."""

    jobs: int  # deleted with their objects
    objects: int  # deleted from the tenant's folder, of jobs without a record
    jobs_left: int
    objects_left: int  # in the tenant's folder
    refused: dict[str, str]  # id of a remaining job → why the store did not delete its objects


def delete_tenant(
    access: DirectAccess,
    tenant: str,
    older_than_s: float,
    on_progress: Callable[[int], object] | None = None,
) -> Flow[Erased]:
    """Delete a tenant's jobs submitted at least `older_than_s` ago. Raises StoreUnavailable.

    on_progress: is called with the number of jobs deleted so far.
    """
    if not re.fullmatch(TENANT, tenant):
        raise InvalidRequest(f"{tenant!r} is not a valid tenant")
    if not older_than_s >= 0:
        raise InvalidRequest(f"older_than is {older_than_s!r}; give 0 seconds or more")
    before_s = time.time() - older_than_s
    wanted = calls.Filter(tenant=tenant)
    left: set[str] = set()
    refused: dict[str, str] = {}
    jobs, cursor = 0, ""
    while True:
        page: calls.Page = yield calls.jobs(wanted, limit=100, cursor=cursor)
        for record in page.records:
            if record.created_ms > before_s * 1000:
                left.add(record.id)
                continue
            try:
                yield from delete_job(access, record.id)
                jobs += 1
                if on_progress:
                    on_progress(jobs)
            except JobNotFound:
                continue  # its record expired meanwhile
            except StoreRefused as error:
                left.add(record.id)
                refused[record.id] = str(error)
        if not (cursor := page.cursor):
            break
    objects, objects_left = yield from _delete_without_record(access, tenant, before_s, left)
    return Erased(jobs, objects, len(left), objects_left, refused)


def _delete_without_record(
    access: DirectAccess, tenant: str, before_s: float, left: set[str]
) -> Flow[tuple[int, int]]:
    """Delete objects of jobs without a record. Returns how many were deleted, and how many remain."""
    folder, before = access.layout.tenant(tenant), datetime.fromtimestamp(before_s, UTC)
    listed: list[s3.Listed] = yield RunBlocking(lambda: access.objects.list_under(folder))
    due = []
    for one in listed:
        owner = access.layout.owner(one.place)
        if owner and one.modified <= before and owner.job_id not in left:
            if (yield calls.get(owner.job_id)):
                left.add(owner.job_id)  # submitted meanwhile
            else:
                due.append(one.place)

    def delete() -> None:
        for found in due:
            access.objects.delete(found)

    yield RunBlocking(delete)
    return len(due), len(listed) - len(due)
