"""Operations by requests to the gateway."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from maskq.client.bulk import SubmitOptions
from maskq.client.deployment import Deployment, EventReader
from maskq.client.events import EventFilter
from maskq.client.http import documents
from maskq.client.http.asking import Gateway, segment
from maskq.client.http.events import HttpReader
from maskq.client.http.outputs import Outputs
from maskq.client.http.submissions import HttpBulk, Submissions
from maskq.client.http.uploads import Uploads
from maskq.client.image_source import ImageSource
from maskq.client.operations.flow import Deadline, Flow, Sleep, Together
from maskq.client.sending import OutageTolerance
from maskq.contract import JobRecord, JobStatus, Output
from maskq.contract.deployment.overview import Overview
from maskq.contract.deployment.workers import Workers
from maskq.contract.options import Options
from maskq.contract.queueing.waiting import Waiting
from maskq.contract.tracing import TraceContext
from maskq.contract.webhooks import Delivery, DeliveryState
from maskq.errors import JobNotFound, StoreUnavailable
from maskq.http.problems import NoSuchSubject
from maskq.http.request import ANSWER_S, Answer, Request
from maskq.ledger.calls import BatchProgress, Filter, Page
from maskq.ledger.calls.models import Known

_WAIT_S: Final = 30.0  # of one request: below the time after which proxies give up
_AGAIN_S: Final = 1.0  # between two tries of a wait during an outage


class HttpDeployment(Deployment):
    """A deployment behind a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._uploads = Uploads(gateway)
        self._submissions = Submissions(gateway, self._uploads)
        self._outputs = Outputs(gateway)

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
    ) -> HttpBulk[Any]:
        return HttpBulk(self._gateway, self._uploads, job, submit_options, options)

    def retry(self, job_id: str, trace: TraceContext | None) -> Flow[str]:
        headers = trace.headers() if trace else {}
        request = Request(method="POST", path=f"{_job(job_id)}/retry", headers=headers)
        answer = yield from self._gateway.ask_about("job", job_id, request)
        return self._gateway.parsed(answer, lambda document: str(document["id"]))

    def records(self, job_ids: Sequence[str]) -> Flow[Mapping[str, JobRecord | None]]:
        if len(job_ids) == 1:
            return {job_ids[0]: (yield from self._record(job_ids[0]))}
        records = yield Together([self._record(job_id) for job_id in job_ids])
        for record in records:
            if isinstance(record, Exception):
                raise record
        return dict(zip(job_ids, records, strict=True))

    def list(self, wanted: Filter, limit: int, cursor: str) -> Flow[Page]:
        query = {
            "status": wanted.status,
            "code": wanted.code,
            "model": wanted.model,
            "tenant": wanted.tenant,
            "batch_id": wanted.batch_id,
            "source": wanted.source,
            "cursor": cursor,
            "limit": str(limit),
        }
        if wanted.ended_since_ms is not None:
            # In the middle of the millisecond, so that a rounded float is still within it.
            query["ended_since"] = f"{wanted.ended_since_ms / 1000 + 0.0005:.4f}"
        given = [(name, str(value)) for name, value in query.items() if value]
        answer = yield from self._gateway.ask(Request(method="GET", path="/v1/jobs", query=given))
        return self._gateway.parsed(answer, documents.page)

    def record_when_ended(self, job_id: str, timeout_s: float | None) -> Flow[JobRecord]:
        answer = yield from self._waited("job", job_id, _job(job_id), (), timeout_s, _has_ended)
        return self._gateway.parsed(answer, documents.record)

    def why(self, job_id: str) -> Flow[Waiting]:
        request = Request(method="GET", path=f"{_job(job_id)}/why")
        answer = yield from self._gateway.ask_about("job", job_id, request)
        return self._gateway.parsed(answer, Waiting.model_validate)

    def cancel(self, job_id: str) -> Flow[bool]:
        request = Request(method="POST", path=f"{_job(job_id)}/cancel")
        answer = yield from self._gateway.ask_about("job", job_id, request, expected=(409,))
        return answer.status != 409

    def delete(self, job_id: str) -> Flow[None]:
        request = Request(method="DELETE", path=_job(job_id))
        answer = yield from self._gateway.ask(request, expected=(404,))
        if answer.status == 404 and answer.tries == 1:  # else the lost answer was of its deletion
            raise JobNotFound(job_id)

    def batch_progress(self, batch_id: str) -> Flow[BatchProgress | None]:
        return (yield from self.batch_when_ended(batch_id, 0.0))

    def batch_when_ended(
        self, batch_id: str, timeout_s: float | None
    ) -> Flow[BatchProgress | None]:
        path = _batch(batch_id)
        try:
            answer = yield from self._waited("batch", batch_id, path, (), timeout_s, _is_over)
        except JobNotFound:
            return None
        return self._gateway.parsed(answer, documents.progress)

    def ended_in_batch(
        self, batch_id: str, seen: int, timeout_s: float | None
    ) -> Flow[Mapping[str, JobRecord | None] | None]:
        path, query = _batch(batch_id), (("seen", str(seen)),)
        try:
            answer = yield from self._waited(
                "batch", batch_id, path, query, timeout_s, lambda found: bool(found["ended_jobs"])
            )
        except JobNotFound:
            return None
        return self._gateway.parsed(
            answer,
            lambda found: {
                name: documents.record_or_none(one) for name, one in found["ended_jobs"].items()
            },
        )

    def cancel_batch(self, batch_id: str, job_ids: Sequence[str]) -> Flow[int]:
        progress = yield from self.batch_progress(batch_id)
        if progress and progress.total == len(job_ids):
            request = Request(method="POST", path=f"{_batch(batch_id)}/cancel")
            answer = yield from self._gateway.ask_about("batch", batch_id, request)
            canceled = self._gateway.parsed(answer, documents.progress).counts
            return canceled.get(JobStatus.CANCELED, 0)
        answers = yield Together([self.cancel(job_id) for job_id in job_ids])
        for one in answers:
            if isinstance(one, Exception) and not isinstance(one, JobNotFound):
                raise one
        return sum(one is True for one in answers)

    def give_up_batch(self, batch_id: str, job_ids: Sequence[str]) -> Flow[None]:
        # Also those that the gateway accepted without an answer that arrived.
        request = Request(method="POST", path=f"{_batch(batch_id)}/cancel")
        yield from self._gateway.ask(request, expected=(404,))

    def reader(
        self, wanted: EventFilter, since: str | None, group: str | None, take_over_s: float
    ) -> EventReader:
        return HttpReader(self._gateway, wanted, since, group, take_over_s)

    def delete_event_group(self, group: str) -> Flow[bool]:
        request = Request(method="DELETE", path="/v1/events/groups", query=[("group", group)])
        answer = yield from self._gateway.ask(request, expected=(404,))
        return answer.status != 404 or answer.tries > 1  # the lost answer was of its deletion

    def deliveries(
        self, subject: str, state: DeliveryState | None, limit: int
    ) -> Flow[Sequence[Delivery]]:
        query = {"subject": subject, "state": state, "limit": str(limit)}
        given = [(name, str(value)) for name, value in query.items() if value]
        request = Request(method="GET", path="/v1/webhooks/deliveries", query=given)
        answer = yield from self._gateway.ask(request)
        return self._gateway.parsed(answer, lambda found: [*map(Delivery.model_validate, found)])

    def redeliver(self, delivery_id: str) -> Flow[bool]:
        path = f"/v1/webhooks/deliveries/{segment(delivery_id, 'delivery')}/redeliver"
        try:
            yield from self._gateway.ask(Request(method="POST", path=path))
        except NoSuchSubject:
            return False
        return True

    def models(self) -> Flow[Known]:
        answer = yield from self._gateway.ask(Request(method="GET", path="/v1/models"))
        return self._gateway.parsed(answer, documents.known_models)

    def workers(self) -> Flow[Workers]:
        answer = yield from self._gateway.ask(Request(method="GET", path="/v1/workers"))
        return self._gateway.parsed(answer, Workers.model_validate)

    def overview(self) -> Flow[Overview]:
        answer = yield from self._gateway.ask(Request(method="GET", path="/v1/overview"))
        return self._gateway.parsed(answer, Overview.model_validate)

    def output(
        self, record: JobRecord, output: Output, uri: str, class_id: int | None
    ) -> Flow[bytes]:
        of_class = "" if class_id is None else f"/{class_id}"
        return self._outputs.read(f"{_job(record.id)}/outputs/{output.value}{of_class}")

    def _record(self, job_id: str) -> Flow[JobRecord | None]:
        try:
            request = Request(method="GET", path=_job(job_id))
            answer = yield from self._gateway.ask_about("job", job_id, request)
        except JobNotFound:
            return None
        return self._gateway.parsed(answer, documents.record)

    def _waited(
        self,
        kind: str,
        subject: str,
        path: str,
        query: Sequence[tuple[str, str]],
        timeout_s: float | None,
        ready: Callable[[Any], bool],
    ) -> Flow[Answer]:
        """The first answer that is ready, or the one after `timeout_s`. Raises JobNotFound.

        An outage is tolerated for a minute once the gateway has answered.
        """
        deadline, tolerance = Deadline(timeout_s), OutageTolerance()
        while True:
            wait_s = _WAIT_S if deadline.left_s is None else min(_WAIT_S, deadline.left_s)
            wait = (("wait", f"{wait_s:.3f}"),) if wait_s >= 0.001 else ()
            request = Request(
                method="GET", path=path, query=(*query, *wait), timeout_s=wait_s + ANSWER_S
            )
            try:
                answer = yield from self._gateway.ask_about(kind, subject, request)
            except StoreUnavailable as error:
                if tolerance.ends_with(error) or deadline.is_over:
                    raise
                yield Sleep(_AGAIN_S)
                continue
            tolerance.answered()
            if deadline.is_over or self._gateway.parsed(answer, ready):
                return answer


def _job(job_id: str) -> str:
    return f"/v1/jobs/{segment(job_id, 'job')}"


def _batch(batch_id: str) -> str:
    return f"/v1/batches/{segment(batch_id, 'batch')}"


def _has_ended(document: Mapping[str, Any]) -> bool:
    return document["status"] not in (JobStatus.QUEUED, JobStatus.RUNNING)


def _is_over(document: Mapping[str, Any]) -> bool:
    return bool(document["ended"] >= document["total"])
