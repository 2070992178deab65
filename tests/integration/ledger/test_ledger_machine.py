"""Workers that crash, tickets that vanish or come twice, clocks that jump: the promises are kept.

Hypothesis draws the story, `ledger_model.py` says what each call must answer, and after every step the
whole deployment is looked at. To search longer than usual: LEDGER_EXAMPLES=2000 pytest -k machine
"""

from __future__ import annotations

import itertools
import os
import uuid
from collections import Counter
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.ledger_harness import MODEL, LedgerHarness
from support.ledger_model import QUEUED, RUNNING, WEIGHTS, Levels, ModelJob, ModelQueue

from maskq.contract import TERMINAL, JobStatus
from maskq.contract.ids import new_token
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import BatchMembership, Claimed, ClaimOutcome, SubmitOutcome

EXAMPLES = int(os.environ.get("LEDGER_EXAMPLES", "0"))
STEPS = 50
BATCH = "batch-1"
BATCH_TOTAL = 3
LEVELS = tuple(WEIGHTS)
TENANTS = (None, "ada", "bob")
ROUNDS_TO_THE_END = 6
FEW = 2  # so many jobs go on, or most of a story would be about jobs that have ended

T = TypeVar("T")

pick = st.integers(0, 10_000)  # an index, modulo whatever there is
workers = st.integers(0, 2)
twice = st.booleans()
levels = st.sampled_from(LEVELS)
tenants = st.sampled_from(TENANTS)


class Worker:
    """A process as the ledger sees it: tickets it took, jobs offered to it, tokens it believes in."""

    def __init__(self) -> None:
        self.tickets = 0  # taken off the list, and nothing claimed for them yet
        self.offered: list[str] = []  # claimed again once it is alone; or never, should it die
        self.held: dict[str, str] = {}


class LedgerMachine(RuleBasedStateMachine):
    redis_url: str  # set by the test

    def __init__(self) -> None:
        super().__init__()
        self.harness = LedgerHarness(Ledger(self.redis_url, f"machine-{uuid.uuid4().hex[:12]}"))
        self.queue = ModelQueue()
        self.jobs = self.queue.jobs
        self.workers = [Worker() for _ in range(3)]
        self.tokens: list[
            tuple[str, str]
        ] = []  # every token a claim was answered for, with its job
        self.winners: dict[str, set[str]] = {}
        self.used: list[str] = []  # tickets ever taken off the list
        self.on_the_list = 0  # at the last look
        self.lost = 0  # tickets that somebody took and nobody will claim anything for
        self.before: dict[str, dict[str, str]] = {}  # each record at the last look

    @initialize(places=st.lists(st.tuples(levels, tenants), min_size=4, max_size=9))
    def a_deployment_at_work(self, places: list[tuple[str, str | None]]) -> None:
        self.harness.sweep()
        for level, tenant in places:
            self.submit(level, tenant, 2, True, False)

    # --- callers --------------------------------------------------------------------------------------

    @rule(
        level=levels,
        tenant=tenants,
        max_attempts=st.integers(1, 3),
        batch=st.booleans(),
        again=twice,
        deferred=st.sampled_from([False, False, False, True]),
    )
    def submit(
        self,
        level: str,
        tenant: str | None,
        max_attempts: int,
        batch: bool,
        again: bool,
        deferred: bool = False,
    ) -> None:
        in_batch = batch and sum(job.batch is not None for job in self.jobs.values()) < BATCH_TOTAL
        job_id = f"job-{len(self.jobs):03}"
        options: dict[str, Any] = {"tenant": tenant, "max_attempts": max_attempts}
        if deferred:
            options["in_ms"] = 3_600_000
        if in_batch:
            options["batch"] = BatchMembership(batch_id=BATCH, total=BATCH_TOTAL)
        outcomes = [
            self.harness.try_submit(job_id, priority=level, **options).outcome
            for _ in range(1 + again)
        ]
        assert outcomes == [SubmitOutcome.ACCEPTED, SubmitOutcome.EXISTS][: 1 + again]
        created_ms = self.harness.record(job_id).created_ms
        place = (level, tenant or "", created_ms, max_attempts)
        job = ModelJob(job_id, *place, BATCH if in_batch else None)
        if deferred:  # it waits without a ticket, as after a back-off
            job.ready, job.too_early, job.offers = False, True, 0
        self.queue.add(job)

    @precondition(lambda self: len(self._open()) > FEW)
    @rule(which=pick, again=twice)
    def cancel(self, which: int, again: bool) -> None:
        job_id, job = self._one_of(self._open(), which)
        expected = job.cancel()
        self.queue.settle()
        for _ in range(1 + again):
            assert self.harness.cancel(job_id) is expected

    @rule(which=pick, again=twice)
    def delete(self, which: int, again: bool) -> None:
        job_id, job = self._one_of(list(self.jobs.items()), which)
        for _ in range(1 + again):
            assert self.harness.delete(job_id) == job.delete()

    # --- workers --------------------------------------------------------------------------------------

    @precondition(lambda self: self.on_the_list)
    @rule(worker=workers, exclusive=st.booleans(), again=twice)
    def take_and_claim(self, worker: int, exclusive: bool, again: bool) -> None:
        self.take(worker)
        self._claim_next(self.workers[worker], exclusive, again)

    @precondition(lambda self: self.on_the_list)
    @rule(worker=workers)
    def take(self, worker: int) -> None:
        """A ticket is taken off the list; the worker may be slow to ask, or die."""
        text = self.harness.redis.rpop(self.harness.queue)
        assert text is not None
        self.used.append(text)
        self.workers[worker].tickets += 1

    @precondition(lambda self: any(worker.tickets for worker in self.workers))
    @rule(which=pick, exclusive=st.booleans(), again=twice)
    def claim(self, which: int, exclusive: bool, again: bool) -> None:
        able = [worker for worker in self.workers if worker.tickets]
        self._claim_next(self._one_of(able, which), exclusive, again)

    def _claim_next(self, worker: Worker, exclusive: bool, again: bool) -> None:
        worker.tickets -= 1
        token = new_token()
        for _ in range(1 + again):
            outcome, job = self.queue.claim(token, exclusive=exclusive)
            answer = self.harness.try_claim(token, exclusive=exclusive)
            assert answer.outcome is outcome
            if job:
                self._had(worker, job, token, answer)

    @rule(worker=workers, exclusive=st.booleans(), again=twice)
    def go_on(self, worker: int, exclusive: bool, again: bool) -> None:
        """Who is done with a job takes a ticket and the next job in one step; or finds no ticket."""
        token = new_token()
        for _ in range(1 + again):
            before = self.harness.redis.lrange(self.harness.queue, 0, -1)
            answered = token in self.queue.answered  # then no other ticket goes
            outcome, job = ClaimOutcome.NONE, None
            if before or answered:
                outcome, job = self.queue.claim(token, exclusive=exclusive)
            answer = self.harness.try_claim(token, exclusive=exclusive, with_ticket=True)
            assert answer.outcome is outcome
            taken = [] if answered else before[-1:]
            assert self.harness.redis.lrange(self.harness.queue, 0, -1) + taken == before
            self.used += taken
            if job:
                self._had(self.workers[worker], job, token, answer)

    def _had(self, worker: Worker, job: ModelJob, token: str, answer: Claimed) -> None:
        """It was this very job; the worker runs it, or makes room for it."""
        self.tokens.append((job.job_id, token))
        if answer.record:
            assert (answer.record.id, answer.record.attempt) == (job.job_id, job.attempt)
            worker.held[job.job_id] = token
        else:
            assert answer.job_id == job.job_id
            worker.offered.append(job.job_id)

    @precondition(lambda self: any(worker.offered for worker in self.workers))
    @rule(which=pick, again=twice)
    def claim_what_was_offered(self, which: int, again: bool) -> None:
        """Nothing else runs in the process any more; the job may be anywhere by now."""
        able = [worker for worker in self.workers if worker.offered]
        worker = self._one_of(able, which)
        self._claim_by_name(worker, worker.offered.pop(), True, again)

    @rule(worker=workers, which=pick, exclusive=st.booleans(), again=twice)
    def claim_any_by_name(self, worker: int, which: int, exclusive: bool, again: bool) -> None:
        job_id, _ = self._one_of(list(self.jobs.items()), which)
        self._claim_by_name(self.workers[worker], job_id, exclusive, again)

    def _claim_by_name(self, worker: Worker, job_id: str, exclusive: bool, again: bool) -> None:
        job, token = self.jobs[job_id], new_token()
        for _ in range(1 + again):
            outcome = self.queue.claim_by_name(job, token, exclusive=exclusive)
            answer = self.harness.try_claim(token, job_id=job_id, exclusive=exclusive)
            assert answer.outcome is outcome
            if outcome is not ClaimOutcome.NONE:
                self._had(worker, job, token, answer)

    @precondition(lambda self: any(worker.held for worker in self.workers))
    @rule()
    def renew(self) -> None:
        for worker in self.workers:
            self._renew(worker)

    def _renew(self, worker: Worker) -> None:
        held = worker.held
        lost = self.harness.renew(held)
        assert lost == {t for job_id, t in held.items() if not self.jobs[job_id].renew(t)}
        worker.held = {j: t for j, t in held.items() if t not in lost}

    @precondition(lambda self: len(self._open()) > FEW and self._work())
    @rule(which=pick, succeeds=st.booleans(), again=twice)
    def finish(self, which: int, succeeds: bool, again: bool) -> None:
        for job_id, token in self._somebody_holds(which, exclusive=False):
            self._finish(job_id, token, succeeds, again)

    @precondition(lambda self: self._work())
    @rule(which=pick, charged=st.booleans(), delayed=st.booleans(), again=twice)
    def release(self, which: int, charged: bool, delayed: bool, again: bool) -> None:
        for job_id, token in self._somebody_holds(which, exclusive=False):
            self._release(job_id, token, charged, delayed, again)

    @precondition(lambda self: self._work())
    @rule(which=pick, exclusive=st.booleans(), swept=st.booleans(), again=twice)
    def a_holder_dies(self, which: int, exclusive: bool, swept: bool, again: bool) -> None:
        """And, once it is swept, the next ticket meets the suspect: it is among the oldest."""
        for job_id, token in self._somebody_holds(which, exclusive=exclusive):
            if self.jobs[job_id].token == token:
                self._lease_runs_out(job_id)
        if not swept:
            return
        self.sweep(False, 1000)
        if self.harness.tickets():
            self.take_and_claim(which % len(self.workers), False, again)

    def _work(self) -> bool:
        return bool(self._held() or self.on_the_list)

    def _somebody_holds(self, which: int, *, exclusive: bool) -> list[tuple[str, str]]:
        """A job and the token of who holds it, or held it; who works takes tickets first. Or none."""
        worker = which % len(self.workers)
        while not self._held() and self.on_the_list:
            self.take_and_claim(worker, exclusive, False)
            self.look_at_the_list()
        held = self._held()
        return [self._one_of(held, which)] if held else []

    @precondition(lambda self: self.tokens)
    @rule(which=pick, says=st.sampled_from(["succeed", "fail", "release", "renew", "claim"]))
    def any_token_there_ever_was_speaks(self, which: int, says: str) -> None:
        """A stalled worker may come back at any time."""
        job_id, token = self.tokens[which % len(self.tokens)]
        job = self.jobs[job_id]
        match says:
            case "release":
                self._release(job_id, token, True, False, False)
            case "renew":
                assert self.harness.renew({job_id: token}) == (
                    set() if job.renew(token) else {token}
                )
            case "claim":
                outcome, _ = self.queue.claim(token, exclusive=False)
                assert self.harness.try_claim(token).outcome is outcome
            case "succeed" | "fail":
                self._finish(job_id, token, says == "succeed", False)

    def _finish(self, job_id: str, token: str, succeeds: bool, again: bool) -> None:
        state = JobStatus.SUCCEEDED if succeeds else JobStatus.FAILED
        expected = self.jobs[job_id].finish(token, state)
        send = self.harness.succeed if succeeds else self.harness.fail
        for _ in range(1 + again):
            assert send(job_id, token) is expected
        if expected:
            self.winners.setdefault(job_id, set()).add(token)

    def _release(self, job_id: str, token: str, charged: bool, delayed: bool, again: bool) -> None:
        expected = self.jobs[job_id].release(token, charged=charged, delayed=delayed)
        self.queue.settle()
        for _ in range(1 + again):
            delay_s = 600.0 if delayed else 0.0
            answer = self.harness.release(job_id, token, charged=charged, delay_s=delay_s)
            assert answer is expected

    @precondition(lambda self: any(one.held or one.tickets or one.offered for one in self.workers))
    @rule(worker=workers)
    def crash(self, worker: int) -> None:
        """Everything it knew is gone, and its leases are not renewed."""
        for job_id, token in self.workers[worker].held.items():
            if self.jobs[job_id].token == token:
                self._lease_runs_out(job_id)
        self.lost += self.workers[worker].tickets
        self.workers[worker] = Worker()

    # --- the broker -----------------------------------------------------------------------------------

    @precondition(lambda self: self.on_the_list)
    @rule(count=st.integers(1, 3), noticed=st.booleans())
    def lose_tickets(self, count: int, noticed: bool) -> None:
        self.lost += len(self.harness.redis.rpop(self.harness.queue, count))
        for _ in range(2 * noticed):
            self.sweep(True, 1000)

    @precondition(lambda self: self.on_the_list)
    @rule(which=pick)
    def double_a_ticket(self, which: int) -> None:
        text = self.harness.redis.lindex(self.harness.queue, which % self.on_the_list)
        assert text is not None
        self.harness.redis.lpush(self.harness.queue, text)

    @precondition(lambda self: self.used)
    @rule(which=pick)
    def restore_a_ticket(self, which: int) -> None:
        """As kombu does with what a lost connection had not acknowledged: it is the next one."""
        self.harness.redis.rpush(self.harness.queue, self._one_of(self.used, which))

    # --- time -----------------------------------------------------------------------------------------

    def _lease_runs_out(self, job_id: str) -> None:
        self.harness.lease_runs_out(job_id)
        self.jobs[job_id].lease_over = True

    @precondition(lambda self: len(self._open()) > FEW)
    @rule(which=pick)
    def a_deadline_passes(self, which: int) -> None:
        """The job's queue_ttl_s, or its run_timeout_s while it runs."""
        job_id, job = self._one_of(self._open(), which)
        self.harness.time_is_up(job_id)
        if job.status is RUNNING:
            job.run_over = True
        else:
            job.ttl_over = True

    @precondition(lambda self: self._waiting())
    @rule()
    def all_waits_pass(self) -> None:
        for job in self._waiting():
            self.harness.backoff_passes(job.job_id)
            job.too_early, job.wait_over = False, True

    # --- the sweeper ----------------------------------------------------------------------------------

    @rule(aged=st.booleans(), gap_ms=st.sampled_from([1000, 1000, 60_000]))
    def sweep(self, aged: bool, gap_ms: int) -> None:
        """`aged`: the last look for lost tickets is a grace time ago."""
        marked_ms = self.harness.now_ms() - (5000 if aged else 0)
        self.harness.redis.hset(self.harness.key("queue", MODEL), "marked_ms", marked_ms)
        tickets, sent = self.harness.tickets(), self.queue.tickets
        swept = self.harness.sweep(after_ms=gap_ms)
        if gap_ms > 1000:  # Redis was away: who could not renew has a lease of grace
            for job in self.jobs.values():
                job.lease_over = False
        counts = (self.queue.reap(), self.queue.come_due(), self.queue.end_waits())
        assert (swept.reaped, swept.due, swept.sent) == counts
        if sum(counts) > 1:  # starts depend on the order in which tenants come
            starts = self._starts()
            assert starts.keys() == self.queue.starts.keys()
            self.queue.starts = starts
        tickets += self.queue.tickets - sent
        again = self.queue.lost_tickets(tickets, aged=aged)
        assert swept.sent_again == again
        assert self.harness.tickets() == tickets + again
        # Whatever was lost or only late: the sweeper makes no list longer than there are jobs for it.
        assert not again or tickets + again <= len(self.queue.to_be_had)

    # --- what always holds ----------------------------------------------------------------------------

    @invariant()
    def look_at_the_list(self) -> None:
        """A job that is to be had has a ticket: on the list, in a hand, or lost."""
        self.on_the_list = self.harness.tickets()
        in_hands = sum(worker.tickets for worker in self.workers)
        assert len(self.queue.to_be_had) <= self.on_the_list + in_hands + self.lost

    @invariant()
    def every_job_is_what_the_model_says(self) -> None:
        records = self._records()
        places = self._places()
        for job_id, job in self.jobs.items():
            raw, earlier = records[job_id], self.before.get(job_id)
            assert places[job_id] == Counter(job.indexes)
            if job.deleted:
                assert raw == {}
                continue
            assert raw["status"] == job.status
            assert int(raw["attempt"]) == job.attempt
            assert int(raw.get("charges", 0)) == job.charges <= min(job.max_attempts, job.attempt)
            assert raw.get("token", "") == job.token
            assert ("ended_ms" in raw) == job.ended
            if earlier:
                assert int(raw["attempt"]) >= int(earlier["attempt"])
                assert int(raw.get("charges", 0)) >= int(earlier.get("charges", 0))
                if earlier["status"] in TERMINAL:
                    assert raw == earlier
            assert len(self.winners.get(job_id, ())) <= 1
        self.before = records

    @invariant()
    def the_queue_is_what_the_model_says(self) -> None:
        """Counts, turns and tickets: what decides about the next job and the next refusal."""
        kept = self.harness.redis.hgetall(self.harness.key("queue", MODEL))
        assert self.harness.queued() == self.queue.queued
        assert int(kept["sequence"]) == self.queue.tickets
        starts = self._starts()
        assert starts == self.queue.starts
        assert int(kept.get("share_weight", 0)) == len(starts)
        assert int(kept.get("share_sum", 0)) == sum(starts.values())
        first = {"1": min(starts.values())} if starts else {}
        assert self._scores("share-weights", MODEL) == first
        for tenant in starts:
            kept = self.harness.redis.hgetall(self.harness.key("levels", tenant, MODEL))
            levels = self.queue.levels.get(tenant, Levels())
            assert int(kept.pop("time", 0)) == levels.time
            due = {name.removeprefix("due:"): int(at) for name, at in kept.items()}
            assert due == levels.due

    def _starts(self) -> dict[str, int]:
        return self._scores("shares", MODEL, "1")

    def _scores(self, *name: str) -> dict[str, int]:
        found = self.harness.redis.zrange(self.harness.key(*name), 0, -1, withscores=True)
        return {member: int(score) for member, score in found}

    @invariant()
    def events_tell_the_history_once(self) -> None:
        events = self.harness.events()
        ids = [event["id"] for event in events]
        assert len(set(ids)) == len(ids)
        told: dict[str, list[str]] = {}
        for one in ids:
            subject, _, state = one.partition(":")
            told.setdefault(subject, []).append(state)
        completed = told.pop(BATCH, [])
        assert told == {job_id: job.history for job_id, job in self.jobs.items()}
        batch = [job for job in self.jobs.values() if job.batch]
        ended = [job.status for job in batch if job.ended]
        assert completed == ["completed"] * (len(ended) == BATCH_TOTAL)
        progress = self.harness.ledger.run(calls.batch_progress(BATCH))
        assert (progress is None) == (not batch)
        if progress:
            assert progress.total == BATCH_TOTAL
            assert progress.counts == Counter(ended)
            assert len(progress.ended) == len(set(progress.ended)) == len(ended)

    def _records(self) -> dict[str, dict[str, str]]:
        with self.harness.redis.pipeline(transaction=False) as pipe:
            for job_id in self.jobs:
                pipe.hgetall(self.harness.key("job", job_id))
            return dict(zip(self.jobs, pipe.execute(), strict=True))

    def _places(self) -> dict[str, Counter[str]]:
        """How often each set names each job; a ready one in its own level's and tenant's only."""
        plain = ("waiting", "leases", "deadlines", "ended", "created")
        sets = [(name, self.harness.key(name), None) for name in plain]
        for place in itertools.product(LEVELS, [tenant or "" for tenant in TENANTS]):
            sets.append(("ready", self.harness.key("ready", MODEL, *place), place))
        with self.harness.redis.pipeline(transaction=False) as pipe:
            for _, key, _ in sets:
                pipe.zrange(key, 0, -1)
            members = pipe.execute()
        found: dict[str, Counter[str]] = {job_id: Counter() for job_id in self.jobs}
        for (name, _, place), ids in zip(sets, members, strict=True):
            for job_id in ids:
                found[job_id][name] += 1
                job = self.jobs[job_id]
                assert place in (None, (job.level, job.tenant))
        return found

    # --- and in the end -------------------------------------------------------------------------------

    def teardown(self) -> None:
        """With sweeps and one healthy worker every job ends, whatever happened before."""
        try:
            for number in range(len(self.workers)):
                self.crash(number)
            for _ in range(ROUNDS_TO_THE_END):
                if all(job.ended for job in self.jobs.values()):
                    break
                for job_id, _ in self._open(RUNNING):
                    self._lease_runs_out(job_id)
                self.all_waits_pass()
                for _ in range(2):  # one that notes lost tickets, and one that sends them again
                    self.sweep(True, 1000)
                self._work_off()
            assert {job_id for job_id, job in self.jobs.items() if not job.ended} == set()
            self.every_job_is_what_the_model_says()
            self.the_queue_is_what_the_model_says()
            self.events_tell_the_history_once()
        finally:
            self.harness.redis.delete(*self.harness.key_names())
            self.harness.ledger.close()

    def _work_off(self) -> None:
        worker = self.workers[0]
        self.look_at_the_list()
        while self.on_the_list:
            self.take_and_claim(0, True, False)
            for job_id, token in worker.held.items():
                self._finish(job_id, token, True, False)
            worker.held.clear()
            self.look_at_the_list()

    def _open(self, *statuses: JobStatus) -> list[tuple[str, ModelJob]]:
        """Jobs that have not ended; of these states only, if any is named."""
        able = statuses or (QUEUED, RUNNING)
        return [one for one in self.jobs.items() if one[1].status in able]

    def _waiting(self) -> list[ModelJob]:
        return [job for job in self.jobs.values() if job.status is QUEUED and not job.ready]

    def _held(self) -> list[tuple[str, str]]:
        return [pair for worker in self.workers for pair in worker.held.items()]

    @staticmethod
    def _one_of(able: list[T], which: int) -> T:
        return able[which % len(able)]


@pytest.mark.timeout(0 if EXAMPLES else 180)
def test_the_machine_keeps_its_promises(redis_url: str) -> None:
    class Machine(LedgerMachine):
        pass

    Machine.redis_url = redis_url
    search = settings(
        max_examples=EXAMPLES or 70,
        stateful_step_count=STEPS,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    run_state_machine_as_test(Machine, settings=search)
