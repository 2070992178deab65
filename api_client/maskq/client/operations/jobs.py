"""Finding, listing and deleting jobs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from maskq.client.admin.removal import Erased, delete_tenant
from maskq.client.job import JobCore, jobs_by_id
from maskq.client.operations.flow import Flow, operation
from maskq.client.operations.page import Page
from maskq.contract import FailureCode, JobStatus
from maskq.contract.locations import http_url, is_url
from maskq.contract.queueing.waiting import Waiting
from maskq.errors import InvalidRequest, JobNotFound
from maskq.ledger import calls

if TYPE_CHECKING:
    from maskq.client.session import Session

PAGE = 500  # records that `list_all` examines in one round trip
_LATEST_S = 1e12  # since the epoch; beyond it Redis' scores are not exact
ChoiceT = TypeVar("ChoiceT", bound=StrEnum)
JobT = TypeVar("JobT", bound=JobCore[Any])


class JobOperations(Generic[JobT]):
    """Mixed into both clients."""

    session: Session
    _job_type: Callable[..., JobT]

    @operation
    def get(self, job_id: str) -> Flow[JobT]:
        """The job with this id, or with this Celery task id. Raises JobNotFound for an unknown id."""
        (job,) = yield from jobs_by_id(self.session, type(self)._job_type, [job_id])
        if job.record is None:
            raise JobNotFound(job_id)
        return job

    @operation
    def list(
        self,
        *,
        status: JobStatus | str | None = None,
        code: FailureCode | str | None = None,
        model: str | None = None,
        tenant: str | None = None,
        batch_id: str | None = None,
        source: str | None = None,
        ended_since: datetime | float | None = None,
        limit: int = 100,
        cursor: str = "",
    ) -> Flow[Page]:
        """One page of records, newest first; continue with `cursor=page.cursor` until it is ''.

        A page may hold fewer records than `limit`, or none, and still have a cursor: `limit` counts
        the records examined. `code`: only jobs that failed with it. `source`: only jobs of this image:
        `s3://bucket/key` (any version), a URL, or a file name as it was given. `ended_since` (a
        datetime, or seconds since the epoch): only jobs that ended since then, in the order in which
        they ended; an event reader that fell behind catches up with it.
        """
        wanted = calls.Filter(
            status=one_of(JobStatus, status, "job status"),
            code=one_of(FailureCode, code, "failure code"),
            model=model,
            tenant=tenant,
            batch_id=batch_id,
            source=source and _checked_source(source),
            ended_since_ms=None if ended_since is None else _since_ms(ended_since),
        )
        page = yield from self.session.deployment.list(wanted, limit, cursor)
        return Page(page.records, page.cursor)

    @operation
    def why(self, job_id: str) -> Flow[Waiting]:
        """What a job waits for: `reason` for programs, `text` for people. Raises JobNotFound."""
        return (yield from self.session.deployment.why(job_id))

    @operation
    def delete(self, job_id: str) -> Flow[None]:
        """Delete a job's record, outputs and uploaded image. A job that has not ended is canceled.

        Its webhooks are deleted too, including those not yet delivered. Its events remain until they
        are trimmed. Raises JobNotFound, StoreUnavailable (the record remains: delete again).
        """
        yield from self.session.deployment.delete(job_id)

    @operation
    def delete_tenant(
        self,
        tenant: str,
        *,
        older_than: float,
        on_progress: Callable[[int], object] | None = None,
    ) -> Flow[Erased]:
        """Delete all jobs of a tenant that were submitted at least `older_than` seconds ago.

        Objects in the tenant's folder whose job's record is gone are deleted too; such objects under
        an `output_prefix` cannot be found. If the store refuses to delete a job's objects, the job
        remains and `refused` names it. `on_progress` is called with the number of jobs deleted so far.
        Raises StoreUnavailable.
        """
        return (yield from delete_tenant(self.session.access, tenant, older_than, on_progress))


def _since_ms(ended_since: datetime | float) -> int:
    seconds = ended_since.timestamp() if isinstance(ended_since, datetime) else ended_since
    if not abs(seconds) < _LATEST_S:  # NaN, too
        raise InvalidRequest(f"ended_since: {seconds!r} is not a time in seconds since the epoch")
    return max(0, int(seconds * 1000))


def _checked_source(source: str) -> str:
    """Raises InvalidRequest for a URL that is not valid."""
    try:
        return http_url(source) if is_url(source) else source
    except ValueError as error:
        raise InvalidRequest(f"source: {error}") from None


def one_of(kind: type[ChoiceT], value: str | None, what: str) -> ChoiceT | None:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        raise InvalidRequest(
            f"{value!r} is not a valid {what}; valid are: {', '.join(kind)}"
        ) from None
