"""The operations of a client, on a deployment in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from maskq.client.bulk import SubmitOptions
from maskq.client.deployment import Deployment, EventReader
from maskq.client.events import EventFilter
from maskq.client.image_source import ImageSource
from maskq.client.operations.flow import Deadline, Flow, Sleep
from maskq.client.sending import OutageTolerance
from maskq.contract import FailureCode, JobRecord, Output
from maskq.contract.deployment.overview import Overview
from maskq.contract.deployment.workers import Workers
from maskq.contract.ids import new_id
from maskq.contract.locations import S3Uri
from maskq.contract.models import DefaultModel, ModelChoice, ServedModel
from maskq.contract.options import Options
from maskq.contract.queueing.waiting import Waiting
from maskq.contract.storage_layout import class_file
from maskq.contract.tracing import TraceContext
from maskq.contract.webhooks import Delivery, DeliveryState
from maskq.errors import InvalidRequest, JobNotFound, StoreRefused, StoreUnavailable
from maskq.ledger.calls import BatchProgress, Filter, Page
from maskq.ledger.calls.models import Known
from maskq.testing import views
from maskq.testing.deployment.ledger import FakeLedger
from maskq.testing.deployment.pictures import colours
from maskq.testing.deployment.readers import FakeGroupReader, FakeReader
from maskq.testing.deployment.submissions import FakeBulk, submitted_when_accepted
from maskq.testing.deployment.worker import LAYOUT, REVISION
from maskq.testing.service import LOOK_S, FakeService
from maskq.testing.views import serving_worker

T = TypeVar("T")


class FakeDeployment(Deployment):
    """The third kind beside `direct` and `http`: everything above it is the real client."""

    def __init__(self, service: FakeService) -> None:
        self._service = service

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
        return submitted_when_accepted(
            self._service, image, options, idempotency_key, queue_full_timeout, trace
        )

    def bulk(
        self, job: Callable[[str], Any], submit_options: SubmitOptions, options: Options
    ) -> FakeBulk[Any]:
        return FakeBulk(self._service, job, submit_options, options)

    def retry(self, job_id: str, trace: TraceContext | None) -> Flow[str]:
        yield from ()
        ledger = self._service.ledger()
        return ledger.submit(ledger.retry_of(job_id, new_id(), trace), self._service.plans)

    def records(self, job_ids: Sequence[str]) -> Flow[Mapping[str, JobRecord | None]]:
        yield from ()
        ledger = self._service.ledger()
        return {job_id: ledger.record(job_id) for job_id in job_ids}

    def list(self, wanted: Filter, limit: int, cursor: str) -> Flow[Page]:
        yield from ()
        return self._service.ledger().page(wanted, limit, cursor)

    def record_when_ended(self, job_id: str, timeout_s: float | None) -> Flow[JobRecord]:
        record = yield from self._waited(
            lambda ledger: ledger.record(job_id), lambda one: one is None or one.ended, timeout_s
        )
        if record is None:
            raise JobNotFound(job_id)
        return record

    def why(self, job_id: str) -> Flow[Waiting]:
        yield from ()
        return self._service.ledger().why(job_id)

    def cancel(self, job_id: str) -> Flow[bool]:
        yield from ()
        return self._service.ledger().cancel(job_id)

    def delete(self, job_id: str) -> Flow[None]:
        yield from ()
        self._service.ledger().delete(job_id)

    def batch_progress(self, batch_id: str) -> Flow[BatchProgress | None]:
        yield from ()
        return self._service.ledger().progress(batch_id)

    def batch_when_ended(
        self, batch_id: str, timeout_s: float | None
    ) -> Flow[BatchProgress | None]:
        return self._waited(
            lambda ledger: ledger.progress(batch_id),
            lambda now: now is None or sum(now.counts.values()) >= now.total,
            timeout_s,
        )

    def ended_in_batch(
        self, batch_id: str, seen: int, timeout_s: float | None
    ) -> Flow[Mapping[str, JobRecord | None] | None]:
        progress = yield from self._waited(
            lambda ledger: ledger.progress(batch_id, seen),
            lambda now: now is None or bool(now.ended),
            timeout_s,
        )
        return None if progress is None else (yield from self.records(progress.ended))

    def cancel_batch(self, batch_id: str, job_ids: Sequence[str]) -> Flow[int]:
        yield from ()
        ledger = self._service.ledger()
        return sum(ledger.cancel(job_id) for job_id in job_ids if ledger.record(job_id))

    def give_up_batch(self, batch_id: str, job_ids: Sequence[str]) -> Flow[None]:
        yield from self.cancel_batch(batch_id, job_ids)

    def reader(
        self, wanted: EventFilter, since: str | None, group: str | None, take_over_s: float
    ) -> EventReader:
        if group is None:
            return FakeReader(self._service, since)
        return FakeGroupReader(self._service, group, since, take_over_s)

    def delete_event_group(self, group: str) -> Flow[bool]:
        yield from ()
        ledger = self._service.ledger()
        with ledger.lock:
            return ledger.stream.delete_group(group)

    def deliveries(
        self, subject: str, state: DeliveryState | None, limit: int
    ) -> Flow[Sequence[Delivery]]:
        yield from ()
        ledger = self._service.ledger()
        with ledger.lock:
            return ledger.stream.deliveries(subject, state, limit)

    def redeliver(self, delivery_id: str) -> Flow[bool]:
        yield from ()
        ledger = self._service.ledger()
        with ledger.lock:
            return ledger.stream.redeliver(delivery_id)

    def models(self) -> Flow[Known]:
        yield from ()
        service = self._service
        worker = serving_worker(service)
        served = {
            "name": service.model,
            "revision": REVISION,
            "workers": (worker,),
            "queued": len(service.ledger().queued()),
            "default": True,
            "labels": service.labels,
            "palette": colours(len(service.labels)),
        }
        return Known(
            (ServedModel.model_validate(served),),
            DefaultModel(name=service.model, choice=ModelChoice.ONLY, known=True),
        )

    def workers(self) -> Flow[Workers]:
        yield from ()
        return views.workers(self._service)

    def overview(self) -> Flow[Overview]:
        yield from ()
        return views.overview(self._service)

    def output(
        self, record: JobRecord, output: Output, uri: str, class_id: int | None
    ) -> Flow[bytes]:
        yield from ()
        if not LAYOUT.of(record).is_output(output, uri):
            raise InvalidRequest(
                f"the result of job {record.id} names {uri}, which is outside the job's own folder "
                f"and is not read"
            )
        place = uri if class_id is None else str(class_file(S3Uri.parse(uri), output, class_id))
        try:
            return self._service.ledger().objects.bodies[place]
        except KeyError:
            error = StoreRefused(f"{place} does not exist")
            error.code = FailureCode.NOT_FOUND
            raise error from None

    def _waited(
        self,
        look: Callable[[FakeLedger], T],
        ready: Callable[[T], bool],
        timeout_s: float | None,
    ) -> Flow[T]:
        """The first answer that is ready, or the one after `timeout_s`.

        An outage is tolerated for a minute once the deployment has answered.
        """
        deadline, tolerance = Deadline(timeout_s), OutageTolerance()
        while True:
            try:
                found = look(self._service.ledger())
            except StoreUnavailable as error:
                if tolerance.ends_with(error) or deadline.is_over:
                    raise
            else:
                tolerance.answered()
                if deadline.is_over or ready(found):
                    return found
            yield Sleep(LOOK_S)
