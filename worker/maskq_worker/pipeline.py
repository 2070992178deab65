"""One job, top to bottom: claim, fetch, decode, prepare, segment, encode, store, commit, finish."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pydantic import ValidationError

from maskq.contract import FailureCode, JobFailure, JobRecord, JobResult, Output
from maskq.contract.ids import new_token
from maskq.contract.places import S3Place
from maskq.errors import StoreUnavailable
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import Call, ClaimOutcome, T
from maskq_worker import images, outputs
from maskq_worker.batcher import BatcherClosed
from maskq_worker.errors import JobError, PermanentError, TransientError
from maskq_worker.gate import Gate
from maskq_worker.leases import Held, Leases, Lost
from maskq_worker.object_store import AlreadyThere, ObjectStore
from maskq_worker.outage import Outage

if TYPE_CHECKING:
    from maskq_worker.batcher import MicroBatcher
    from maskq_worker.model import ModelInput, ModelOutput, Segmenter
    from maskq_worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

MANIFEST = "result.json"
_BACKOFF_S = (1.0, 60.0)  # first and longest pause before a retry
_OUTAGE_S = 120.0  # for so long an outcome is kept for a Redis that is away
_OUTAGE_STEP_S = 0.5


class Pipeline:
    """What every job thread of a process shares."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        ledger: Ledger,
        store: ObjectStore,
        segmenter: Segmenter,
        batcher: MicroBatcher[ModelInput, ModelOutput],
        leases: Leases,
        owner: str,
    ) -> None:
        self._settings = settings
        self._prefix = settings.key_prefix
        self.ledger = ledger
        self._store = store
        self._segmenter = segmenter
        self._batcher = batcher
        self._leases = leases
        self._owner = owner
        self._gate = Gate()
        self._outage = Outage(lambda: store.answers(settings.s3_bucket))

    def stop_claiming(self) -> None:
        """What is held goes on; a ticket that is taken from now on is given back."""
        self._outage.close()

    def run(self, model: str) -> None:
        """Run the next job of the model, if there is one."""
        if not self._outage.wait():
            self._persist(calls.send_ticket(self._prefix, model))  # for whoever goes on
            return
        with self._gate.shared():
            claimed = self._claim_and_run(model)
        if claimed.outcome is ClaimOutcome.ALONE:
            with self._gate.alone():
                self._claim_and_run(model, claimed.job_id)

    def _claim_and_run(self, model: str, alone: str = "") -> calls.Claimed:
        token = new_token()
        call = calls.claim(
            self._prefix,
            model,
            token,
            owner=self._owner,
            lease_s=self._settings.lease_s,
            job_id=alone,
            exclusive=bool(alone),
        )
        claimed = self._persist(call)
        if claimed.record:
            self._hold(claimed.record, token)
        return claimed

    def _hold(self, record: JobRecord, token: str) -> None:
        with self._leases.hold(record.id, token) as held:
            try:
                self._finish(record, held, self._segment(record, held))
            except Lost:
                self._discard(record, held)
            except JobError as error:
                self._give_up(record, held, error)
            except BatcherClosed:
                self._give_up(record, held, _stopping())
            except MemoryError:
                message = "the worker ran out of memory on this image"
                self._give_up(record, held, PermanentError(FailureCode.OUT_OF_MEMORY, message))
            except Exception as error:
                logger.exception("job %s met a fault of ours", record.id)
                message = (
                    f"an unexpected {type(error).__name__}; the worker's log has the traceback"
                )
                self._give_up(record, held, PermanentError(FailureCode.INTERNAL, message))

    def _segment(self, record: JobRecord, held: Held) -> JobResult:
        """All stages, or the result of an earlier attempt that got as far as its manifest."""
        place = self._job_place(record)
        if record.attempt > 1 and (earlier := self._committed(place)):
            return earlier
        times = Stopwatch()
        source = S3Place.parse(record.request.image_uri)
        with times.stage("fetch"):
            stored = self._store.get(source, max_bytes=self._settings.max_image_bytes)
        with times.stage("decode"):
            decoded = images.decode(
                stored.body, max_bytes=None, max_pixels=self._settings.max_image_pixels
            )
        with times.stage("prepare"):
            prepared = self._segmenter.prepare(decoded.image, outputs=record.request.outputs)
        held.check()
        with times.stage("model"):
            output = self._batcher.submit(prepared).result()
        held.check()
        with times.stage("encode"):
            artifacts = outputs.encode(
                record.request.outputs,
                image=decoded.image,
                output=output,
                labels=self._segmenter.info.labels,
            )
        with times.stage("store"):
            places = {}
            for artifact in artifacts:
                at = place / held.token / artifact.filename
                held.written.append(at)
                self._store.put(at, artifact.body, artifact.content_type)
                places[artifact.output] = str(at)
        held.check()
        stats = outputs.stats(output.mask, self._segmenter.info.labels)
        result = JobResult(
            width=decoded.image.width,
            height=decoded.image.height,
            model=record.model,
            model_revision=self._segmenter.info.revision,
            backend=self._segmenter.info.backend,
            outputs=places,
            labels={entry.id: entry.label for entry in stats},
            stats=stats if Output.STATS in record.request.outputs else [],
            source_etag=stored.etag,
            notes=list(decoded.notes),
            timings_ms=times.milliseconds,
        )
        return self._commit(place, result, held)

    def _commit(self, place: S3Place, result: JobResult, held: Held) -> JobResult:
        """The manifest decides which attempt's outputs are the job's: it is created once."""
        body = result.model_dump_json(exclude_defaults=True).encode()
        # From here on the outputs belong to the manifest: an error may hide that it was written.
        written, held.written = held.written, []
        try:
            self._store.create(place / MANIFEST, body, "application/json")
        except AlreadyThere:
            earlier = self._committed(place)
            if earlier and earlier.outputs != result.outputs:
                self._remove(written)
                return earlier
        return result

    def _committed(self, place: S3Place) -> JobResult | None:
        body = self._store.find(place / MANIFEST)
        if body is None:
            return None
        try:
            return JobResult.model_validate_json(body)
        except ValidationError as error:
            raise PermanentError(
                FailureCode.INVALID_REQUEST,
                f"{place / MANIFEST} is in the way and no manifest of ours; choose another "
                f"output_prefix",
            ) from error

    def _finish(self, record: JobRecord, held: Held, result: JobResult) -> None:
        if not self._persist(calls.succeed(self._prefix, record.id, held.token, result)):
            self._discard(record, held, result)
            return
        logger.info("job %s succeeded %s", record.id, result.timings_ms)

    def _discard(self, record: JobRecord, held: Held, result: JobResult | None = None) -> None:
        """The job is not ours any more; what this attempt wrote goes, unless it is its result now."""
        current = self._persist(calls.get(self._prefix, record.id))
        if current and not current.ended:
            return  # whoever claims it next adopts the manifest, if this attempt got that far
        if current and current.result:
            return
        if result:
            outputs = [S3Place.parse(uri) for uri in result.outputs.values()]
            self._remove([self._job_place(record) / MANIFEST, *outputs])
        self._remove(held.written)
        logger.info("job %s: attempt %d was called off", record.id, record.attempt)

    def _remove(self, places: Sequence[S3Place]) -> None:
        """Nobody will ask for these; what a store that is away keeps, a lifecycle rule removes."""
        with suppress(JobError):
            for place in places:
                self._store.delete(place)

    def _give_up(self, record: JobRecord, held: Held, error: JobError) -> None:
        failure = JobFailure(code=error.code, message=error.message)
        if error.code is FailureCode.STORE_UNAVAILABLE:
            self._outage.report()
        self._remove(held.written)
        if isinstance(error, TransientError):
            delay_s = backoff_s(record.attempt)
            call = calls.release(
                self._prefix,
                record.id,
                held.token,
                failure,
                charged=error.charged,
                delay_s=delay_s,
            )
            outcome = self._persist(call)
            logger.warning("job %s: %s; %s", record.id, error.message, outcome.value)
            return
        self._persist(calls.fail(self._prefix, record.id, held.token, failure))
        logger.warning("job %s failed (%s): %s", record.id, error.code, error.message)

    def _job_place(self, record: JobRecord) -> S3Place:
        if record.request.output_prefix:
            return S3Place.parse(record.request.output_prefix, key_required=False) / record.id
        return S3Place(self._settings.s3_bucket, self._settings.output_prefix) / record.id

    def _persist(self, call: Call[T]) -> T:
        """Every call may be sent twice, so an outage of Redis is waited out here."""
        end = time.monotonic() + _OUTAGE_S
        while True:
            try:
                return self.ledger.run(call)
            except StoreUnavailable as error:
                if time.monotonic() > end:
                    raise
                logger.warning("%s; trying again", error)
                time.sleep(_OUTAGE_STEP_S)


class Stopwatch:
    """How long each stage of a job took."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.milliseconds[name] = round((time.perf_counter() - start) * 1000, 2)


def _stopping() -> TransientError:
    return TransientError(FailureCode.WORKER_LOST, "its worker was told to stop", charged=False)


def backoff_s(attempt: int) -> float:
    """Seconds before attempt + 1: doubles, with jitter, so that a crowd does not come back at once."""
    first, longest = _BACKOFF_S
    return min(longest, first * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)
