"""Runs jobs: claims one, runs its stages, and tells the ledger how it ended."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic

from maskq.backoff import JOB_RETRY, LATER_JITTER
from maskq.contract import FailureCode, JobFailure, JobRecord, JobResult, JobStatus
from maskq.contract.ids import new_token
from maskq.contract.locations import PrivateUrls
from maskq.inert import fields
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import Call, ClaimOutcome, ReleaseOutcome, T
from maskq_worker.batching.errors import BatcherClosed
from maskq_worker.copies.error_files import ErrorFiles
from maskq_worker.copies.named_copies import NotPublished
from maskq_worker.errors import JobError, PermanentError, StoreAway, TransientError
from maskq_worker.jobs.cleanup import Cleanup
from maskq_worker.jobs.leases import HeldJob, LeaseLost, Leases
from maskq_worker.jobs.read_write_lock import ReadWriteLock
from maskq_worker.jobs.retrying_ledger import RetryingLedger
from maskq_worker.jobs.stages import Stages
from maskq_worker.storage.object_store import ObjectStore
from maskq_worker.telemetry.attempt_trace import attempt_trace
from maskq_worker.telemetry.counters import ProcessCounters
from maskq_worker.telemetry.log_fields import job_fields
from maskq_worker.telemetry.stopwatch import Stopwatch

if TYPE_CHECKING:
    from maskq_worker.batching.batcher import MicroBatcher
    from maskq_worker.decoding import Decoder
    from maskq_worker.model import ModelInput, PendingOutput, Segmenter
    from maskq_worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

_KEEP_ON_S = 1.0  # a thread runs further jobs for so long before it returns to Celery
_NEWER_S = 5.0  # before a job that this version does not understand is offered again
_NOTHING: Final = calls.Claimed(ClaimOutcome.NONE)
_NO_FURTHER_JOBS: Final = float("-inf")  # as the time until which a thread claims further jobs


class JobRunner:
    """Runs the jobs of all threads of a process."""

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
        counters: ProcessCounters | None = None,
    ) -> None:
        """counters: of the process; default: its own, which nobody reads."""
        self._counters = counters or ProcessCounters()
        self._settings = settings
        self._ledger = RetryingLedger(ledger)
        self._stages = Stages(
            settings, store=store, decoder=decoder, segmenter=segmenter, batcher=batcher
        )
        self._cleanup = Cleanup(self._ledger, store, settings.layout)
        self._error_files = ErrorFiles(self._ledger, store, settings.layout)
        self._leases = leases
        self._owner = owner
        self._process_lock = ReadWriteLock()
        self._breaker = store.breaker

    def stop_claiming(self) -> None:
        """Claim no more jobs. Jobs in progress continue; tickets taken from now on are sent again."""
        self._breaker.close()

    @property
    def may_claim(self) -> bool:
        """Whether jobs are claimed: not while the object store is unavailable or the worker stops."""
        return self._breaker.may_claim

    def run(self, model: str) -> None:
        """Run the next job of the model, if there is one, and further jobs for a short time.

        The caller has taken a ticket. For further jobs this thread takes tickets itself, which is
        cheaper than a message through Celery, and claims each job in the round trip that ends the one
        before. It returns soon, because Celery's other messages wait for this thread.
        """
        if not self._breaker.wait_to_claim():
            self.persist(calls.send_ticket(model))  # for another worker
            return
        with self._process_lock.shared():
            if not self._breaker.may_claim:  # it took long to get the lock
                self.persist(calls.send_ticket(model))
                return
            until = time.monotonic() + _KEEP_ON_S
            claimed = self.persist(self._claim(model))
            while claimed.outcome is ClaimOutcome.CLAIMED:
                claimed = self._run(claimed, model, until)
        if claimed.outcome is ClaimOutcome.ALONE:
            self._run_alone(model, claimed.job_id)

    def persist(self, call: Call[T]) -> T:
        """Run a call; repeat it while Redis is unavailable."""
        return self._ledger.run(call)

    # --- claim and report ----------------------------------------------------------------------------

    def _run_alone(self, model: str, job_id: str) -> None:
        """Run a job whose process died before, with no other job in this process."""
        with self._process_lock.alone():
            claimed = self.persist(self._claim(model, alone=job_id))
            if claimed.outcome is ClaimOutcome.CLAIMED:
                self._run(claimed, model, _NO_FURTHER_JOBS)

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

    def _run(self, claimed: calls.Claimed, model: str, until: float) -> calls.Claimed:
        """Run a claimed job. Returns the claim that follows it."""
        if claimed.record is None:
            return self._report(self._leave_to_newer(claimed), model, until)
        record = claimed.record
        with self._leases.hold(record.id, claimed.token) as held:
            trace = attempt_trace(record, claimed.retried)
            outcome = self._outcome(record, claimed.urls, held, Stopwatch(trace))
            trace.ended(outcome.reason) if outcome else trace.lost()
            if outcome is not None:
                held.begin_leaving()
                if outcome.ends_job:
                    self._counters.job_ended()
            return self._report(outcome, model, until)

    def _report(self, outcome: Outcome[T] | None, model: str, until: float) -> calls.Claimed:
        """Tell the ledger how a job ended, and claim the next one in the same round trip.

        outcome: None if the job is no longer this worker's. until: no further job is claimed after
        this time, by time.monotonic().
        """
        claim = self._next_claim(model, until)
        if outcome is None:
            return self.persist(claim) if claim else _NOTHING
        if claim is None:
            outcome.follow_up(self.persist(outcome.call))
            return _NOTHING
        answer, claimed = self._ledger.run_both(outcome.call, claim)
        if claimed.record:  # renew its lease from now on: what follows may take longer than a lease
            self._leases.begin(claimed.job_id, claimed.token)
        try:
            outcome.follow_up(answer)
        except Exception:  # the next job must run all the same
            logger.exception("a job has ended, but the steps after its end failed")
        return claimed

    def _next_claim(self, model: str, until: float) -> Call[calls.Claimed] | None:
        """The call that claims another job; None if the thread returns to Celery."""
        if (
            time.monotonic() < until
            and self._breaker.may_claim
            and not self._process_lock.is_wanted_alone
        ):
            return self._claim(model, with_ticket=True)
        return None

    # --- outcomes ------------------------------------------------------------------------------------

    def _leave_to_newer(self, claimed: calls.Claimed) -> Outcome[ReleaseOutcome]:
        """A client may be newer than this worker during an upgrade: a newer worker runs the job."""
        job_id, newer = claimed.job_id, claimed.newer
        failure = JobFailure(
            code=FailureCode.INVALID_REQUEST,
            message=f"the worker that took it does not know {newer}; it waits for a newer one",
        )
        call = calls.release(job_id, claimed.token, failure, charged=False, delay_s=_NEWER_S)
        return LeftToNewerWorker(call, job_id, newer)

    def _outcome(
        self, record: JobRecord, urls: PrivateUrls, held: HeldJob, times: Stopwatch
    ) -> Outcome[Any] | None:
        """Run the stages. Returns how the job ends or is retried; None if it is no longer ours."""
        try:
            return self._succeeded(record, held, self._stages.run(record, urls, held, times))
        except LeaseLost:
            self._cleanup.discard(record, held)
            return None
        except JobError as error:
            return self._unsuccessful(record, held, error)
        except BatcherClosed:
            return self._unsuccessful(record, held, _stopping())
        except MemoryError:
            message = "the worker ran out of memory on this image"
            out_of_memory = PermanentError(FailureCode.OUT_OF_MEMORY, message)
            return self._unsuccessful(record, held, out_of_memory)
        except Exception as error:
            logger.exception("job %s failed with an internal error", record.id)
            message = f"an unexpected {type(error).__name__}; the worker's log has the traceback"
            internal = PermanentError(FailureCode.INTERNAL, message)
            return self._unsuccessful(record, held, internal)

    def _succeeded(self, record: JobRecord, held: HeldJob, result: JobResult) -> Outcome[bool]:
        self._cleanup.remove_written(record, held)
        call = calls.succeed(record.id, held.token, result)
        return Succeeded(call, record, held, result, self._cleanup, self._counters)

    def _unsuccessful(self, record: JobRecord, held: HeldJob, error: JobError) -> Outcome[Any]:
        """Fail the job, or release it for another attempt if the error is transient."""
        failure = error.failure()
        # Before the ledger is told: if this process dies first, the sweeper reclaims the job.
        is_left = isinstance(error, NotPublished) and not self._cleanup.remove_result(
            record, error.result
        )
        later = isinstance(error, StoreAway)
        self._cleanup.remove_written(record, held, later=later, is_left=is_left)
        if not isinstance(error, TransientError):
            status = JobStatus.FAILED
            call_failed = calls.fail(record.id, held.token, status, failure)
            return Failed(call_failed, record, status, error, self._error_files)
        call = calls.release(
            record.id,
            held.token,
            failure,
            charged=error.charged,
            delay_s=retry_delay_s(record.attempt, error),
        )
        return Released(call, record, error)


@dataclass(frozen=True, slots=True)
class Outcome(ABC, Generic[T]):
    """How a job leaves this process."""

    ends_job: ClassVar[bool] = False
    call: Call[T]  # tells the ledger

    @property
    def reason(self) -> JobError | None:
        """Why the attempt has no result; None if it has one."""
        return None

    @abstractmethod
    def follow_up(self, answer: T) -> None:
        """Do what follows the ledger's answer."""


@dataclass(frozen=True, slots=True)
class Succeeded(Outcome[bool]):
    ends_job = True
    record: JobRecord
    held: HeldJob
    result: JobResult
    cleanup: Cleanup
    counters: ProcessCounters

    def follow_up(self, answer: bool) -> None:
        """answer: whether the job was still this worker's."""
        timings_ms = self.result.timings_ms
        if answer:
            self.counters.job_succeeded(timings_ms)
            logger.info(
                "job %s succeeded %s", self.record.id, timings_ms,
                extra=fields(
                    partial(job_fields, self.record, JobStatus.SUCCEEDED, timings_ms=timings_ms)
                ),
            )  # fmt: skip
        else:
            self.cleanup.discard(self.record, self.held, self.result)


@dataclass(frozen=True, slots=True)
class Failed(Outcome[bool]):
    ends_job = True
    record: JobRecord
    status: JobStatus
    error: JobError
    error_files: ErrorFiles

    @property
    def reason(self) -> JobError:
        return self.error

    def follow_up(self, answer: bool) -> None:
        """answer: whether the job was still this worker's."""
        error = self.error
        logger.warning(
            "job %s %s (%s): %s", self.record.id, self.status, error.code, error.message,
            extra=fields(partial(job_fields, self.record, self.status, error.code)),
        )  # fmt: skip
        if answer:
            self.error_files.write_now(self.record, self.status, error.failure())


@dataclass(frozen=True, slots=True)
class Released(Outcome[ReleaseOutcome]):
    record: JobRecord
    error: JobError

    @property
    def reason(self) -> JobError:
        return self.error

    def follow_up(self, answer: ReleaseOutcome) -> None:
        logger.warning(
            "job %s: %s; %s", self.record.id, self.error.message, answer.value,
            extra=fields(partial(job_fields, self.record, answer, self.error.code)),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LeftToNewerWorker(Outcome[ReleaseOutcome]):
    job_id: str
    newer: str

    def follow_up(self, answer: ReleaseOutcome) -> None:
        logger.warning("job %s needs %s: left to a newer worker", self.job_id, self.newer)


def _stopping() -> TransientError:
    return TransientError(FailureCode.WORKER_LOST, "its worker was told to stop", charged=False)


def retry_delay_s(attempt: int, error: TransientError) -> float:
    """Seconds before attempt + 1. A store that is unavailable is not asked before its own time."""
    delay_s = JOB_RETRY.pause_s(attempt)
    if isinstance(error, StoreAway):
        delay_s = max(delay_s, LATER_JITTER.applied_to(error.retry_s))
    return delay_s
