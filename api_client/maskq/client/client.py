"""Client and AsyncClient: submit, get, list, segment, events. Every operation is written once."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack

from maskq.client.admin.api_keys import ApiKeyOperations
from maskq.client.admin.models import ModelOperations
from maskq.client.admin.removal import Erased, delete_job, delete_tenant
from maskq.client.bulk import CHUNK, Bulk, Submission, SubmitOptions, is_reference
from maskq.client.events import TAKE_OVER_S, EventFilter, left_s_of, reader
from maskq.client.job import (
    DEFAULT_WAIT_S,
    AsyncBatch,
    AsyncJob,
    Batch,
    Job,
    JobCore,
    jobs_by_id,
)
from maskq.client.objects import Objects, read_image
from maskq.client.operations.flow import (
    Flow,
    Pipeline,
    RunBlocking,
    RunsAsync,
    RunsBlocking,
    operation,
)
from maskq.client.requests import Options, build, check_webhook, fingerprint, refuse
from maskq.client.results.result import AsyncResult, Result
from maskq.client.sending import NO_ROOM, QueueFullBackoff, sent
from maskq.client.session import AsyncSession, BlockingSession, Session
from maskq.contract import Event, FailureCode, JobRecord, JobStatus, SegmentRequest
from maskq.contract.ids import new_id
from maskq.contract.locations import S3Uri
from maskq.contract.webhooks import Delivery, DeliveryState
from maskq.errors import InvalidRequest, JobNotFound, QueueFull, StoreUnavailable
from maskq.ledger import calls
from maskq.ledger.calls import BatchMembership, Call, Submitted

if TYPE_CHECKING:
    import PIL.Image

    from maskq.settings import Settings

    ImageSource = str | Path | bytes | PIL.Image.Image

ChoiceT = TypeVar("ChoiceT", bound=StrEnum)
JobT = TypeVar("JobT", bound=JobCore[Any])
BatchT = TypeVar("BatchT")


class ClientCore(ModelOperations, ApiKeyOperations, Generic[JobT, BatchT]):
    """Everything a caller can do; `Client` does it, `AsyncClient` has it awaited."""

    session: Session
    _session_type: Callable[[Settings], Session]
    _job_type: Callable[..., JobT]
    _batch_type: Callable[..., BatchT]

    def __init__(self, settings: Settings | None = None) -> None:
        """`settings`: as `from_env` reads them, which is what most want."""
        from maskq.settings import usable

        self.session = type(self)._session_type(usable(settings))
        self._driver: Any = self.session.driver

    @property
    def settings(self) -> Settings:
        return self.session.settings

    @property
    def key_prefix(self) -> str:
        return self.session.key_prefix

    @property
    def objects(self) -> Objects:
        return self.session.objects

    def __reduce__(self) -> tuple[Any, ...]:
        # Connections stay here: by its settings, which hold the password of Redis.
        return type(self), (self.settings,)

    @classmethod
    def from_env(cls, **overrides: Any) -> Self:
        """A client from MASKQ_* variables; S3 credentials come by the AWS chain.

        `overrides`: settings that go before the environment, by the variable's name in lower case
        without MASKQ_: `from_env(redis_url="redis://…", s3_bucket="photos")`. Raises InvalidRequest for
        one that is misspelled or wrong.
        """
        from maskq.settings import Settings

        return cls(Settings.load(**overrides))

    @operation
    def submit(
        self,
        image: ImageSource,
        *,
        idempotency_key: str | None = None,
        durable: bool = False,
        room_timeout: float | None = 0.0,
        **options: Unpack[Options],
    ) -> Flow[JobT]:
        """Ask for one image to be segmented; returns when the job is safe in the ledger.

        `image`: a path, bytes, a PIL image (uploaded first), 's3://bucket/key', or an https URL, which
        may be presigned; `output_urls`: presigned URLs that outputs are put to. Submitting again with
        the same `idempotency_key` returns the first job. `durable`: returns only when Redis has it on
        disk; costs up to a second with `appendfsync everysec`. `room_timeout`: seconds to wait for room
        in a full queue (None: as long as it takes). Raises InvalidRequest, UnknownModel, QueueFull,
        IdempotencyConflict, StoreUnavailable.
        """
        job_id = new_id()
        request, upload = self._prepare(job_id, image, options)
        idempotency = None
        if idempotency_key is not None:
            idempotency = calls.Idempotency(
                key=idempotency_key, fingerprint=fingerprint(request, upload)
            )
            known = yield from self._known_under(idempotency_key)
            if known and known[1] == idempotency.fingerprint:
                return self._job(known[0])
        if upload:
            yield RunBlocking(lambda: self.objects.put(S3Uri.parse(request.image_uri), *upload))
        call = calls.submit(job_id, request, self.session.limits, idempotency=idempotency)
        sending = self._accepted(call, durable=durable, room_timeout=room_timeout)
        if upload:
            sending = self._or_removed(job_id, S3Uri.parse(request.image_uri), sending)
        answer = yield from sending
        refuse(answer, request, idempotency_key)
        return self._job(answer.job_id)

    @operation
    def submit_many(
        self,
        images: Iterable[ImageSource],
        *,
        durable: bool = False,
        room_timeout: float | None = 0.0,
        batch_webhook: str | None = None,
        **options: Unpack[Options],
    ) -> Flow[BatchT]:
        """Ask for many at once: one handle, one completion event. All are accepted or none is.

        `durable` and `room_timeout` as for `submit`; `batch_webhook` is told when all have ended, a
        `webhook` of each.
        """
        if batch_webhook is not None:
            check_webhook(batch_webhook)
        sources = list(images)
        if not sources:
            raise InvalidRequest("submit_many got no images")
        place = BatchMembership(batch_id=new_id(), total=len(sources), webhook=batch_webhook)
        manner = SubmitOptions(
            batch=place, durable=durable, room_timeout=room_timeout, outage_s=0.0
        )
        bulk: Bulk[JobT] = Bulk(self.session, self._job_type, manner, options)
        jobs: dict[int, JobT] = {}
        try:
            for step in bulk.steps(sources):
                outcomes = yield from step
                jobs |= {number: job for number, (_, job, _) in outcomes if job}
                if errors := [error for _, (_, _, error) in outcomes if error]:
                    raise errors[0]
        except Exception:
            # Half a batch would never complete: take back what was accepted, then say why.
            accepted = [*(job.id for job in jobs.values()), *bulk.unconfirmed_job_ids]
            with suppress(StoreUnavailable):
                yield Pipeline([calls.cancel(job_id) for job_id in accepted])
            raise
        in_order = [jobs[number] for number in range(len(sources))]
        return self._batch_type(self.session, place.batch_id, in_order)

    def batch(self, batch_id: str, job_ids: Iterable[str]) -> BatchT:
        """A handle on jobs of one batch or run: `for job in client.batch(run_id, ids).as_completed()`.

        `job_ids`: all jobs that were submitted under it; one that is named twice counts once.
        """
        return self._batch_type(
            self.session, batch_id, [self._job(i) for i in dict.fromkeys(job_ids)]
        )

    def _bulk(
        self,
        run_id: str | None,
        durable: bool,
        room_timeout: float | None,
        chunk: int,
        options: Options,
    ) -> Bulk[JobT]:
        if run_id == "":
            raise InvalidRequest("run_id is empty; leave it out, or give the run a name")
        manner = SubmitOptions(
            # How many there will be is not known: counted, with an end for each, and none for all.
            batch=BatchMembership(batch_id=run_id or new_id(), total=0),
            run_id=run_id,
            durable=durable,
            room_timeout=room_timeout,
            chunk=chunk,
        )
        return Bulk(self.session, self._job_type, manner, options)

    @operation
    def get(self, job_id: str) -> Flow[JobT]:
        """The job of this id, or of this task id of Celery's.

        Raises JobNotFound: an unknown id is an error, never 'pending'.
        """
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
        ended_since: datetime | float | None = None,
        limit: int = 100,
        cursor: str = "",
    ) -> Flow[calls.Page]:
        """One page of records, newest first; go on with `cursor=page.cursor` while it is not ''.

        A page may hold fewer than `limit`, even none, and still have a cursor: that many were looked
        at. `code`: why they failed. `ended_since` (a time, or seconds since the epoch) lists what has
        ended from then on, in the order of ending: so a reader of events who fell behind catches up.
        """
        if isinstance(ended_since, datetime):
            ended_since = ended_since.timestamp()
        wanted = calls.Filter(
            status=_one_of(JobStatus, status, "job status"),
            code=_one_of(FailureCode, code, "failure code"),
            model=model,
            tenant=tenant,
            batch_id=batch_id,
            ended_since_ms=None if ended_since is None else int(ended_since * 1000),
        )
        page: calls.Page = yield calls.jobs(wanted, limit=limit, cursor=cursor)
        return page

    @operation
    def retry(self, job_id: str) -> Flow[JobT]:
        """Submit again what failed, expired or was canceled: a new job, whose `retry_of` is this one.

        Asked for twice, the first retry is returned. Raises InvalidRequest for a job that has not
        ended or has succeeded, JobNotFound, and what `submit` raises.
        """
        record: JobRecord | None = yield calls.get(job_id)
        if record is None:
            raise JobNotFound(job_id)
        if not record.ended or record.status is JobStatus.SUCCEEDED:
            raise InvalidRequest(
                f"job {job_id} is {record.status.value}; only what failed, expired or was canceled "
                f"is tried again"
            )
        if record.request.incomplete:
            raise InvalidRequest(
                f"the presigned URLs of job {job_id} were forgotten when it ended; submit it anew"
            )
        key = f"retry:{record.id}"
        known = yield from self._known_under(key)
        if known:
            return self._job(known[0])
        new = new_id()
        # Its own copy of an uploaded image: deleting the first job must not take it away.
        request = record.request
        uploaded = self.session.layout.of(record).is_upload(request.image_uri)
        copy = self.session.layout.job(new, tenant=request.tenant).upload
        if uploaded:
            original = S3Uri.parse(request.image_uri)
            yield RunBlocking(lambda: self.objects.copy(original, copy))
            request = request.model_copy(update={"image_uri": str(copy)})
        call = calls.submit(
            new,
            request,
            self.session.limits,
            idempotency=calls.Idempotency(key=key, fingerprint=record.id),
            retry_of=record.id,
        )
        sending = self._accepted(call, durable=False, room_timeout=0.0)
        if uploaded:
            sending = self._or_removed(new, copy, sending)
        answer = yield from sending
        refuse(answer, request, key)
        return self._job(answer.job_id)

    @operation
    def delete(self, job_id: str) -> Flow[None]:
        """Remove a job for good: record, outputs, uploaded image. It is canceled if it has not ended.

        Its webhooks go with it, also those that have not been posted yet. Events stay until they are
        trimmed. Raises JobNotFound, StoreUnavailable (then
        the record still stands: delete again).
        """
        yield from delete_job(self.session, job_id)

    @operation
    def delete_tenant(self, tenant: str, *, older_than: float) -> Flow[Erased]:
        """Delete all jobs of a tenant that were submitted `older_than` seconds ago, as `delete` does.

        Objects in the tenant's folder go, too, where their job's record is gone; those under an
        `output_prefix` are not found any more then. A job whose objects the store refuses to delete
        is left, and named in `refused`. Raises StoreUnavailable.
        """
        return (yield from delete_tenant(self.session, tenant, older_than))

    def _known_under(self, key: str) -> Flow[tuple[str, str] | None]:
        """Job id and fingerprint, unless that job was deleted."""
        known: tuple[str, str] | None = yield calls.known_under(key)
        if known and (yield calls.get(known[0])):
            return known
        return None

    @operation
    def deliveries(
        self,
        subject: str = "",
        *,
        state: DeliveryState | str | None = None,
        limit: int = 100,
    ) -> Flow[Sequence[Delivery]]:
        """Webhooks of a job or batch, or all, with their attempts; newest first."""
        wanted = _one_of(DeliveryState, state, "state of a delivery")
        found: Sequence[Delivery] = yield calls.deliveries(
            subject=subject, state=wanted, limit=limit
        )
        return found

    @operation
    def redeliver(self, delivery_id: str) -> Flow[None]:
        """Post a webhook once more, whatever became of it. Raises JobNotFound past its retention."""
        if not (yield calls.deliver_again(delivery_id)):
            raise JobNotFound(delivery_id, kind="delivery")

    def _accepted(
        self, submission: Call[Submitted], *, durable: bool, room_timeout: float | None
    ) -> Flow[Submitted]:
        """The answer; what found no room is sent again until there is, or the time is up."""
        room = QueueFullBackoff(room_timeout)
        while True:
            answer: Submitted
            (answer,) = yield from sent([submission], durable)
            if answer.outcome not in NO_ROOM or room.time_is_up:
                return answer
            yield room.wait()

    def _or_removed(self, job_id: str, upload: S3Uri, sending: Flow[Submitted]) -> Flow[Submitted]:
        """The answer. The job's upload goes again if no job of this id came of it."""
        try:
            answer = yield from sending
        except QueueFull:  # Redis is at its memory limit, perhaps since after the job
            if not (yield calls.get(job_id)):
                yield from self._remove_upload(upload)
            raise
        if not (answer.stands and answer.job_id == job_id):
            yield from self._remove_upload(upload)
        return answer

    def _remove_upload(self, upload: S3Uri) -> Flow[None]:
        with suppress(StoreUnavailable):  # an object too many is no reason to fail
            yield RunBlocking(lambda: self.objects.delete(upload))

    def _job(self, job_id: str, record: JobRecord | None = None) -> JobT:
        return type(self)._job_type(self.session, record, job_id)

    def _prepare(
        self, job_id: str, image: ImageSource, options: Options
    ) -> tuple[SegmentRequest, tuple[bytes, str] | None]:
        """The request, and the body and content type to upload, if the image is not in S3 yet."""
        if is_reference(image):
            return build(str(image), options), None
        upload = read_image(image)
        storage = self.session.layout.job(job_id, tenant=options.get("tenant"))
        return build(str(storage.upload), options), upload


def _one_of(kind: type[ChoiceT], value: str | None, what: str) -> ChoiceT | None:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        raise InvalidRequest(f"{value!r} is no {what}; there are {', '.join(kind)}") from None


class Client(ClientCore[Job, Batch], RunsBlocking):
    """Submits and polls jobs. Thread-safe, and usable after a fork; close it, or use a `with` block."""

    _job_type = Job
    _batch_type = Batch
    _session_type = BlockingSession
    session: BlockingSession

    def segment(
        self,
        image: ImageSource,
        *,
        timeout: float | None = DEFAULT_WAIT_S,
        idempotency_key: str | None = None,
        durable: bool = False,
        room_timeout: float | None = 0.0,
        **options: Unpack[Options],
    ) -> Result:
        """Submit and wait: what `submit` takes, and what `Job.wait` returns."""
        job = self.submit(
            image,
            idempotency_key=idempotency_key,
            durable=durable,
            room_timeout=room_timeout,
            **options,
        )
        return job.wait(timeout)

    def submit_each(
        self,
        images: Iterable[ImageSource],
        *,
        run_id: str | None = None,
        durable: bool = False,
        room_timeout: float | None = None,
        chunk: int = CHUNK,
        **options: Unpack[Options],
    ) -> Iterator[Submission[Job]]:
        """Ask for any number: `for image, job, error in client.submit_each(images, run_id="may")`.

        Images are taken as they are needed and submitted `chunk` at a time; each is yielded once it
        has a `job`, or the `error` why it has none (InvalidRequest, IdempotencyConflict, QueueFull),
        and the others go on. A full queue is waited for, without end unless there is a `room_timeout`
        (seconds without room for any); Redis or S3 that go away meanwhile, for a minute.

        `run_id` names the run. Under the same one an image is submitted once, however often it is
        asked for: after a crash begin again from the first. It is the jobs' `batch_id`, too, for
        `list` and `batch`. Raises UnknownModel, StoreUnavailable, InvalidRequest for an option.
        """
        for step in self._bulk(run_id, durable, room_timeout, chunk, options).steps(images):
            for _, submission in self._driver.drive(step):
                yield submission

    def events(
        self,
        since: str | None = None,
        *,
        types: Iterable[str] | None = None,
        job_ids: Iterable[str] | None = None,
        idle: float | None = None,
        group: str | None = None,
        take_over: float = TAKE_OVER_S,
    ) -> Iterator[Event]:
        """Events as they come: after the cursor `since`, '0' for all that are kept, None for from now.

        `types`: only these, 'maskq.job.succeeded' or 'job.succeeded'; `job_ids`: only of these jobs.
        `group`: readers of one name share the events; an event is confirmed when the next one is asked
        for, and goes to another reader when it was not for `take_over` seconds. `since` then says where
        a group begins that is new. Ends when nothing came for `idle` seconds (None: never). Raises
        EventsLost: list() with `ended_since` what was missed, and go on from now.
        """
        wanted = EventFilter.of(types, job_ids)
        source = reader(since, group, take_over)
        wanted = self._driver.drive(wanted.resolved())
        self._driver.drive(source.open())
        last = time.monotonic()
        try:
            while (left_s := left_s_of(last, idle)) > 0:
                for event in self._driver.drive(source.read(left_s)):
                    if wanted.passes(event):
                        yield event
                        last = time.monotonic()
                    self._driver.drive(source.confirm(event))
        finally:
            with suppress(StoreUnavailable):
                self._driver.drive(source.close())

    def close(self) -> None:
        """Give the connections back. A client that is used again connects again."""
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(ClientCore[AsyncJob, AsyncBatch], RunsAsync):
    """The same, awaited, in any number of event loops; close it, or use it in an `async with` block."""

    _job_type = AsyncJob
    _batch_type = AsyncBatch
    _session_type = AsyncSession
    session: AsyncSession

    async def segment(
        self,
        image: ImageSource,
        *,
        timeout: float | None = DEFAULT_WAIT_S,
        idempotency_key: str | None = None,
        durable: bool = False,
        room_timeout: float | None = 0.0,
        **options: Unpack[Options],
    ) -> AsyncResult:
        """Submit and wait: what `submit` takes, and what `AsyncJob.wait` returns."""
        job = await self.submit(
            image,
            idempotency_key=idempotency_key,
            durable=durable,
            room_timeout=room_timeout,
            **options,
        )
        return await job.wait(timeout)

    async def submit_each(
        self,
        images: Iterable[ImageSource],
        *,
        run_id: str | None = None,
        durable: bool = False,
        room_timeout: float | None = None,
        chunk: int = CHUNK,
        **options: Unpack[Options],
    ) -> AsyncIterator[Submission[AsyncJob]]:
        """Ask for any number; see Client.submit_each."""
        for step in self._bulk(run_id, durable, room_timeout, chunk, options).steps(images):
            for _, submission in await self._driver.drive(step):
                yield submission

    async def events(
        self,
        since: str | None = None,
        *,
        types: Iterable[str] | None = None,
        job_ids: Iterable[str] | None = None,
        idle: float | None = None,
        group: str | None = None,
        take_over: float = TAKE_OVER_S,
    ) -> AsyncIterator[Event]:
        """Events as they come; see Client.events."""
        wanted = EventFilter.of(types, job_ids)
        source = reader(since, group, take_over)
        wanted = await self._driver.drive(wanted.resolved())
        await self._driver.drive(source.open())
        last = time.monotonic()
        try:
            while (left_s := left_s_of(last, idle)) > 0:
                for event in await self._driver.drive(source.read(left_s)):
                    if wanted.passes(event):
                        yield event
                        last = time.monotonic()
                    await self._driver.drive(source.confirm(event))
        finally:
            with suppress(StoreUnavailable):
                await self._driver.drive(source.close())

    async def close(self) -> None:
        """Give the connections back. A client that is used again connects again."""
        await self.session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
