"""One job, from its claim to what becomes of it; stages.py has what happens in between."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

from maskq.contract import FailureCode, JobFailure, JobRecord, JobResult
from maskq.contract.ids import new_token
from maskq.contract.places import PrivateUrls
from maskq.errors import StoreUnavailable
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import Call, ClaimOutcome, T
from maskq_worker.batcher import BatcherClosed
from maskq_worker.errors import JobError, PermanentError, TransientError
from maskq_worker.gate import Gate
from maskq_worker.leases import Held, Leases, Lost
from maskq_worker.object_store import ObjectStore
from maskq_worker.outage import Outage
from maskq_worker.stages import Stages

if TYPE_CHECKING:
    from maskq_worker.batcher import MicroBatcher
    from maskq_worker.model import ModelInput, ModelOutput, Segmenter
    from maskq_worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

_BACKOFF_S = (1.0, 60.0)  # first and longest pause before a retry
_KEEP_ON_S = 1.0  # without going back to Celery
_NEWER_S = 5.0  # before a job that this version does not understand is offered again
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
        self._stages = Stages(settings, store=store, segmenter=segmenter, batcher=batcher)
        self._leases = leases
        self._owner = owner
        self._gate = Gate()
        self._outage = Outage(lambda: store.answers(settings.s3_bucket))

    def stop_claiming(self) -> None:
        """What is held goes on; a ticket that is taken from now on is given back."""
        self._outage.close()

    def run(self, model: str) -> None:
        """Run the next job of the model, if there is one, and for a while those after it.

        The caller has a ticket. For more jobs this thread takes tickets itself, which costs less than a
        message through Celery; not for long, since Celery's other messages wait for this thread.
        """
        if not self._outage.wait():
            self._persist(calls.send_ticket(self._prefix, model))  # for whoever goes on
            return
        end = time.monotonic() + _KEEP_ON_S
        found = self._run_next(model)
        while found and time.monotonic() < end and self._outage.wait():
            found = self._run_next(model, with_ticket=True)

    def _run_next(self, model: str, *, with_ticket: bool = False) -> bool:
        """Whether there was a job."""
        with self._gate.shared():
            claimed = self._claim_and_run(model, with_ticket=with_ticket)
        if claimed.outcome is ClaimOutcome.ALONE:
            with self._gate.alone():
                self._claim_and_run(model, claimed.job_id)
        return claimed.outcome is not ClaimOutcome.NONE

    def _claim_and_run(
        self, model: str, alone: str = "", *, with_ticket: bool = False
    ) -> calls.Claimed:
        token = new_token()
        call = calls.claim(
            self._prefix,
            model,
            token,
            owner=self._owner,
            lease_s=self._settings.lease_s,
            job_id=alone,
            exclusive=bool(alone),
            with_ticket=with_ticket,
        )
        claimed = self._persist(call)
        if claimed.record:
            self._hold(claimed.record, claimed.urls, token)
        elif claimed.newer:
            self._leave_to_newer(claimed, token)
        return claimed

    def _leave_to_newer(self, claimed: calls.Claimed, token: str) -> None:
        """In a rolling upgrade clients may be ahead of this worker: another one runs it, uncharged."""
        failure = JobFailure(
            code=FailureCode.INVALID_REQUEST,
            message=f"the worker that took it does not know {claimed.newer}; it waits for a newer one",
        )
        call = calls.release(
            self._prefix, claimed.job_id, token, failure, charged=False, delay_s=_NEWER_S
        )
        self._persist(call)
        logger.warning("job %s asks for %s: left to a newer worker", claimed.job_id, claimed.newer)

    def _hold(self, record: JobRecord, urls: PrivateUrls, token: str) -> None:
        with self._leases.hold(record.id, token) as held:
            try:
                self._finish(record, held, self._stages.run(record, urls, held))
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
            self._stages.remove_result(record, result)
        self._stages.remove(held.written)
        logger.info("job %s: attempt %d was called off", record.id, record.attempt)

    def _give_up(self, record: JobRecord, held: Held, error: JobError) -> None:
        failure = JobFailure(code=error.code, message=error.message)
        self._stages.remove(held.written)
        if isinstance(error, TransientError):
            if error.code is FailureCode.STORE_UNAVAILABLE and not error.charged:
                self._outage.report()  # ours; a caller's own store is charged to the caller's job
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


def _stopping() -> TransientError:
    return TransientError(FailureCode.WORKER_LOST, "its worker was told to stop", charged=False)


def backoff_s(attempt: int) -> float:
    """Seconds before attempt + 1: doubles, with jitter, so that a crowd does not come back at once."""
    first, longest = _BACKOFF_S
    return min(longest, first * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)
