"""Operations on Redis and S3 themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from maskq.client.admin.removal import delete_job
from maskq.client.bulk import SubmitOptions
from maskq.client.deployment import Deployment, EventReader
from maskq.client.direct.access import DirectAccess
from maskq.client.direct.bulk import DirectBulk
from maskq.client.direct.events import GroupReader, Reader
from maskq.client.direct.overview import read_overview
from maskq.client.direct.submissions import Submissions
from maskq.client.events import EventFilter
from maskq.client.image_source import ImageSource
from maskq.client.operations.flow import Flow, Pipeline, RunBlocking, WaitFor
from maskq.contract import JobRecord, JobStatus, Output
from maskq.contract.deployment.overview import Overview
from maskq.contract.deployment.workers import Workers
from maskq.contract.locations import S3Uri
from maskq.contract.options import Options
from maskq.contract.queueing.waiting import Waiting
from maskq.contract.storage_layout import class_file
from maskq.contract.tracing import TraceContext
from maskq.contract.webhooks import Delivery, DeliveryState
from maskq.errors import InvalidRequest, JobNotFound
from maskq.ledger import calls, keys
from maskq.ledger.calls import BatchProgress, Filter, Page, groups, models
from maskq.ledger.calls.deployment.workers import live_workers
from maskq.ledger.calls.queueing.waiting import why
from maskq.ledger.records import RawRecord

if TYPE_CHECKING:
    from maskq.settings import Settings


class DirectDeployment(Deployment):
    """A deployment whose Redis and S3 this process reaches."""

    def __init__(self, access: DirectAccess, settings: Settings) -> None:
        self._access = access
        self._settings = settings
        self._key_prefix = settings.key_prefix
        self._submissions = Submissions(access)

    def submit(
        self,
        image: ImageSource,
        options: Options,
        *,
        idempotency_key: str | None,
        durable: bool,
        queue_full_timeout: float | None,
        trace: TraceContext | None,
    ) -> Flow[str]:
        return self._submissions.submit(
            image,
            options,
            idempotency_key=idempotency_key,
            durable=durable,
            queue_full_timeout=queue_full_timeout,
            trace=trace,
        )

    def bulk(
        self, job: Callable[[str], Any], submit_options: SubmitOptions, options: Options
    ) -> DirectBulk[Any]:
        return DirectBulk(self._access, job, submit_options, options)

    def retry(self, job_id: str, trace: TraceContext | None) -> Flow[str]:
        return self._submissions.retry(job_id, trace)

    def records(self, job_ids: Sequence[str]) -> Flow[Mapping[str, JobRecord | None]]:
        records = yield Pipeline([calls.get(job_id) for job_id in job_ids])
        return dict(zip(job_ids, records, strict=True))

    def list(self, wanted: Filter, limit: int, cursor: str) -> Flow[Page]:
        page: Page = yield calls.jobs(wanted, limit=limit, cursor=cursor)
        return page

    def record_when_ended(self, job_id: str, timeout_s: float | None) -> Flow[JobRecord]:
        raw: RawRecord | None = yield self._wait(
            job_id, calls.look(job_id), lambda raw: raw is None or raw.ended, timeout_s
        )
        if raw is None:
            raise JobNotFound(job_id)
        return raw.parse()

    def why(self, job_id: str) -> Flow[Waiting]:
        waiting: Waiting | None = yield why(job_id)
        if waiting is None:
            raise JobNotFound(job_id)
        return waiting

    def cancel(self, job_id: str) -> Flow[bool]:
        status = yield calls.cancel(job_id)
        if status is None:
            raise JobNotFound(job_id)
        return bool(status is JobStatus.CANCELED)

    def delete(self, job_id: str) -> Flow[None]:
        return delete_job(self._access, job_id)

    def batch_progress(self, batch_id: str) -> Flow[BatchProgress | None]:
        progress: BatchProgress | None = yield calls.batch_progress(batch_id)
        return progress

    def batch_when_ended(
        self, batch_id: str, timeout_s: float | None
    ) -> Flow[BatchProgress | None]:
        progress: BatchProgress | None = yield self._wait(
            batch_id,
            calls.batch_progress(batch_id),
            lambda now: now is None or sum(now.counts.values()) >= now.total,
            timeout_s,
        )
        return progress

    def ended_in_batch(
        self, batch_id: str, seen: int, timeout_s: float | None
    ) -> Flow[Mapping[str, JobRecord | None] | None]:
        progress: BatchProgress | None = yield self._wait(
            batch_id,
            calls.batch_progress(batch_id, seen),
            lambda now: now is None or bool(now.ended),
            timeout_s,
        )
        return None if progress is None else (yield from self.records(progress.ended))

    def cancel_batch(self, batch_id: str, job_ids: Sequence[str]) -> Flow[int]:
        statuses = yield Pipeline([calls.cancel(job_id) for job_id in job_ids])
        return sum(status is JobStatus.CANCELED for status in statuses)

    def give_up_batch(self, batch_id: str, job_ids: Sequence[str]) -> Flow[None]:
        yield from self.cancel_batch(batch_id, job_ids)

    def reader(
        self, wanted: EventFilter, since: str | None, group: str | None, take_over_s: float
    ) -> EventReader:
        return Reader(since) if group is None else GroupReader(group, since, take_over_s)

    def delete_event_group(self, group: str) -> Flow[bool]:
        return bool((yield groups.delete(group)))

    def deliveries(
        self, subject: str, state: DeliveryState | None, limit: int
    ) -> Flow[Sequence[Delivery]]:
        found: Sequence[Delivery] = yield calls.deliveries(
            subject=subject, state=state, limit=limit
        )
        return found

    def redeliver(self, delivery_id: str) -> Flow[bool]:
        return bool((yield calls.deliver_again(delivery_id)))

    def models(self) -> Flow[models.Known]:
        known: models.Known = yield models.known(self._access.limits)
        return known

    def workers(self) -> Flow[Workers]:
        workers: Workers = yield live_workers()
        return workers

    def overview(self) -> Flow[Overview]:
        return read_overview(self._settings)

    def output(
        self, record: JobRecord, output: Output, uri: str, class_id: int | None
    ) -> Flow[bytes]:
        place = S3Uri.parse(self._own(record, output, uri))
        if class_id is not None:
            place = class_file(place, output, class_id)
        body: bytes = yield RunBlocking(partial(self._access.objects.get, place))
        return body

    def _own(self, record: JobRecord, output: Output, uri: str) -> str:
        """`uri`, if it is in the job's own folder: it is read with this client's rights."""
        storage = self._access.layout.of(record)
        if not storage.is_output(output, uri):
            raise InvalidRequest(
                f"the result of job {record.id} names {uri}, which is outside the job's own folder "
                f"{storage.outputs}/ and is not read; MASKQ_S3_BUCKET and MASKQ_OUTPUT_PREFIX "
                f"must be those of the workers"
            )
        return uri

    def _wait(
        self,
        subject: str,
        call: calls.Call[Any],
        ready: Callable[[Any], bool],
        timeout_s: float | None,
    ) -> WaitFor:
        return WaitFor(keys.wake(subject).within(self._key_prefix), call, ready, timeout_s)
