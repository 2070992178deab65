"""One job, from its claim to what becomes of it; stages.py has what happens in between."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic

from maskq.contract import FailureCode, JobFailure, JobRecord, JobResult
from maskq.contract.ids import new_token
from maskq.contract.locations import PrivateUrls
from maskq.errors import StoreUnavailable
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import Call, ClaimOutcome, ReleaseOutcome, T
from maskq_worker.batching.batcher import BatcherClosed
from maskq_worker.errors import JobError, PermanentError, StoreAway, TransientError
from maskq_worker.jobs.leases import HeldJob, LeaseLost, Leases
from maskq_worker.jobs.read_write_lock import ReadWriteLock
from maskq_worker.jobs.stages import Stages
from maskq_worker.storage.object_store import ObjectStore

if TYPE_CHECKING:
    from maskq_worker.batching.batcher import MicroBatcher
    from maskq_worker.decoding import Decoder
    from maskq_worker.model import ModelInput, PendingOutput, Segmenter
    from maskq_worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

_BACKOFF_S = (1.0, 60.0)  # first and longest pause before a retry
_KEEP_ON_S = 1.0  # without going back to Celery
_NEWER_S = 5.0  # before a job that this version does not understand is offered again
_OUTAGE_S = 120.0  # for so long an outcome is kept for a Redis that is away
_OUTAGE_STEP_S = 0.5
_NOTHING: Final = calls.Claimed(ClaimOutcome.NONE)

# Asked once a job is done: what claims the next one, None if this thread is to claim no more.
Following = Callable[[], Call[calls.Claimed] | None]


class Pipeline:
    """What every job thread of a process shares."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        ledger: Ledger,
        store: ObjectStore,
        decoder: Decoder,
        segmenter: Segmenter,
        batcher: MicroBatcher[ModelInput, PendingOutput],
        leases: Leases,
        owner: str,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._stages = Stages(
            settings, store=store, decoder=decoder, segmenter=segmenter, batcher=batcher
        )
        self._leases = leases
        self._owner = owner
        self._gate = ReadWriteLock()
        self._breaker = store.breaker

    def stop_claiming(self) -> None:
        """What is held goes on; a ticket that is taken from now on is given back."""
        self._breaker.close()

    @property
    def may_claim(self) -> bool:
        """Whether it takes jobs: not while the object store is away, nor once it stops."""
        return self._breaker.may_claim

    def run(self, model: str) -> None:
        """Run the next job of the model, if there is one, and for a while those after it.

        The caller has a ticket. For more jobs this thread takes tickets itself, which costs less than a
        message through Celery, and claims each in the round trip that ends the one before; not for
        long, since Celery's other messages wait for this thread.
        """
        if not self._breaker.wait_to_claim():
            self.persist(calls.send_ticket(model))  # for whoever goes on
            return
        with self._gate.shared():
            if not self._breaker.may_claim:  # a suspect had the process to itself, perhaps for long
                self.persist(calls.send_ticket(model))
                return
            until = time.monotonic() + _KEEP_ON_S
            claimed = self.persist(self._claim(model))
            while claimed.outcome is ClaimOutcome.CLAIMED:
                claimed = self._run(claimed, lambda: self._next(model, until))
        if claimed.outcome is ClaimOutcome.ALONE:
            with self._gate.alone():
                suspect = self.persist(self._claim(model, alone=claimed.job_id))
                if suspect.outcome is ClaimOutcome.CLAIMED:
                    self._run(suspect, lambda: None)

    def _claim(
        self, model: str, *, alone: str = "", with_ticket: bool = False
    ) -> Call[calls.Claimed]:
        return calls.claim(
            model,
            new_token(),
            owner=self._owner,
            lease_s=self._settings.lease_s,
            job_id=alone,
            exclusive=bool(alone),
            with_ticket=with_ticket,
        )

    def _next(self, model: str, until: float) -> Call[calls.Claimed] | None:
        """What claims another job; None: go back to Celery."""
        if time.monotonic() < until and self._breaker.may_claim and not self._gate.wanted:
            return self._claim(model, with_ticket=True)
        return None

    def _run(self, claimed: calls.Claimed, following: Following) -> calls.Claimed:
        """Returns what is claimed after it."""
        if claimed.record is None:
            return self._end(self._left_to_newer(claimed), following)
        record = claimed.record
        with self._leases.hold(record.id, claimed.token) as held:
            return self._end(self._outcome(record, claimed.urls, held), following)

    def _end(self, ending: Ending[T] | None, following: Following) -> calls.Claimed:
        claim = following()
        if ending is None:
            return self.persist(claim) if claim else _NOTHING
        if claim is None:
            ending.after(self.persist(ending.call))
            return _NOTHING
        answer, claimed = self._waiting_out(lambda: self._ledger.run_both(ending.call, claim))
        if claimed.record:  # it is ours already, and what follows may take longer than a lease
            self._leases.begin(claimed.job_id, claimed.token)
        try:
            ending.after(answer)
        except Exception:  # the next job must not suffer for it
            logger.exception("a job has ended, but what was to follow did not work")
        return claimed

    def _left_to_newer(self, claimed: calls.Claimed) -> Ending[ReleaseOutcome]:
        """In a rolling upgrade clients may be ahead of this worker: another one runs it, uncharged."""
        job_id, newer = claimed.job_id, claimed.newer
        failure = JobFailure(
            code=FailureCode.INVALID_REQUEST,
            message=f"the worker that took it does not know {newer}; it waits for a newer one",
        )
        return Ending(
            calls.release(job_id, claimed.token, failure, charged=False, delay_s=_NEWER_S),
            lambda _: logger.warning("job %s asks for %s: left to a newer worker", job_id, newer),
        )

    def _outcome(self, record: JobRecord, urls: PrivateUrls, held: HeldJob) -> Ending[Any] | None:
        """The job's end, or its way back into the queue; None: it is not ours any more."""
        try:
            return self._succeeded(record, held, self._stages.run(record, urls, held))
        except LeaseLost:
            self._discard(record, held)
            return None
        except JobError as error:
            return self._given_up(record, held, error)
        except BatcherClosed:
            return self._given_up(record, held, _stopping())
        except MemoryError:
            message = "the worker ran out of memory on this image"
            return self._given_up(record, held, PermanentError(FailureCode.OUT_OF_MEMORY, message))
        except Exception as error:
            logger.exception("job %s met a fault of ours", record.id)
            message = f"an unexpected {type(error).__name__}; the worker's log has the traceback"
            return self._given_up(record, held, PermanentError(FailureCode.INTERNAL, message))

    def _succeeded(self, record: JobRecord, held: HeldJob, result: JobResult) -> Ending[bool]:
        self._clear(record, held)

        def after(done: bool) -> None:
            if done:
                logger.info("job %s succeeded %s", record.id, result.timings_ms)
            else:
                self._discard(record, held, result)

        return Ending(calls.succeed(record.id, held.token, result), after)

    def _discard(self, record: JobRecord, held: HeldJob, result: JobResult | None = None) -> None:
        """The job is not ours any more; what this attempt wrote goes, unless it is its result now."""
        current = self.persist(calls.get(record.id))
        # Whoever claims it next adopts the manifest, if this attempt got that far.
        kept = current and (not current.ended or current.result)
        if result and not kept and not self._stages.remove_result(record, result):
            held.may_be_committed = True
        self._clear(record, held)
        logger.info("job %s: attempt %d was called off", record.id, record.attempt)

    def _clear(self, record: JobRecord, held: HeldJob, *, later: bool = False) -> None:
        """What this attempt wrote and no manifest names goes: now or, if that cannot be, later."""
        later = later and bool(held.written)
        if later or held.may_be_committed or not self._stages.remove(record, held.written):
            call = calls.leave_orphans(
                record.id,
                tenant=record.request.tenant,
                output_prefix=record.request.output_prefix,
            )
            self.persist(call)
        held.written = []

    def _given_up(self, record: JobRecord, held: HeldJob, error: JobError) -> Ending[Any]:
        failure = error.failure()
        # Before the job is given back: should we die first, its lease runs out and others do it.
        self._clear(record, held, later=isinstance(error, StoreAway))
        if not isinstance(error, TransientError):
            return Ending(
                calls.fail(record.id, held.token, failure),
                lambda _: logger.warning(
                    "job %s failed (%s): %s", record.id, error.code, error.message
                ),
            )
        delay_s = backoff_s(record.attempt)
        if isinstance(error, StoreAway):
            delay_s = max(delay_s, error.retry_s * random.uniform(1.0, 1.5))
        call = calls.release(
            record.id,
            held.token,
            failure,
            charged=error.charged,
            delay_s=delay_s,
        )
        return Ending(
            call,
            lambda outcome: logger.warning(
                "job %s: %s; %s", record.id, error.message, outcome.value
            ),
        )

    def persist(self, call: Call[T]) -> T:
        """Carry it out, as soon as there is a Redis."""
        return self._waiting_out(lambda: self._ledger.run(call))

    def _waiting_out(self, ask: Callable[[], T]) -> T:
        """Every call may be sent twice, so an outage of Redis is waited out here."""
        end = time.monotonic() + _OUTAGE_S
        while True:
            try:
                return ask()
            except StoreUnavailable as error:
                if time.monotonic() > end:
                    raise
                logger.warning("%s; trying again", error)
                time.sleep(_OUTAGE_STEP_S)


@dataclass(frozen=True, slots=True)
class Ending(Generic[T]):
    """How a job leaves this process."""

    call: Call[T]
    after: Callable[[T], None]  # given the ledger's answer


def _stopping() -> TransientError:
    return TransientError(FailureCode.WORKER_LOST, "its worker was told to stop", charged=False)


def backoff_s(attempt: int) -> float:
    """Seconds before attempt + 1: doubles, with jitter, so that a crowd does not come back at once."""
    first, longest = _BACKOFF_S
    return min(longest, first * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)
