"""Workers that crash, messages that vanish or come twice, clocks that jump: the promises are kept.

Hypothesis draws the story, `ledger_model.py` says what each call must answer, and after every step the
whole deployment is looked at. To search longer than usual: LEDGER_EXAMPLES=2000 pytest -k machine
"""

from __future__ import annotations

import json
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

from maskq.contract import TERMINAL, JobStatus
from maskq.contract.ids import new_id, new_token
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import BatchPlace, ClaimOutcome, SubmitOutcome

from .ledger_desk import MODEL, Desk
from .ledger_model import QUEUED, RUNNING, ModelJob

EXAMPLES = int(os.environ.get("LEDGER_EXAMPLES", "0"))
STEPS = 50
BATCH = "batch-1"
BATCH_TOTAL = 3
PRIORITIES = ("high", "normal")
ROUNDS_TO_THE_END = 6
FEW = 2  # so many jobs go on, or most of a story would be about jobs that have ended

T = TypeVar("T")

pick = st.integers(0, 10_000)  # an index, modulo whatever there is
workers = st.integers(0, 2)
twice = st.booleans()


class Worker:
    """A process as the ledger sees it: messages it took, tokens it believes in."""

    def __init__(self) -> None:
        self.hand: list[str] = []  # jobs named by messages that were taken and not asked for yet
        self.held: dict[str, str] = {}


class LedgerMachine(RuleBasedStateMachine):
    ledger: Ledger  # set by the test

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(self.ledger, f"machine-{uuid.uuid4().hex[:12]}")
        self.jobs: dict[str, ModelJob] = {}
        self.workers = [Worker() for _ in range(3)]
        self.tokens: list[tuple[str, str]] = []  # every token ever, with its job
        self.winners: dict[str, set[str]] = {}
        self.taken: list[tuple[str, str]] = []  # messages ever taken off a list, with the list
        self.taken_tags: set[str] = set()
        self.messages: list[tuple[str, str]] = []  # on the lists at the last look, with the list
        self.before: dict[str, dict[str, str]] = {}  # each record at the last look
        self.queues = [f"{self.desk.prefix}.{MODEL}.{priority}" for priority in PRIORITIES]

    @initialize(priorities=st.lists(st.sampled_from(PRIORITIES), min_size=3, max_size=6))
    def a_deployment_at_work(self, priorities: list[str]) -> None:
        self.desk.sweep()
        for priority in priorities:
            self.submit(priority, 2, True, False)

    # --- callers --------------------------------------------------------------------------------------

    @rule(
        priority=st.sampled_from(PRIORITIES),
        max_attempts=st.integers(1, 3),
        batch=st.booleans(),
        again=twice,
    )
    def submit(self, priority: str, max_attempts: int, batch: bool, again: bool) -> None:
        in_batch = batch and sum(job.batch is not None for job in self.jobs.values()) < BATCH_TOTAL
        job_id = new_id()
        options: dict[str, Any] = {"priority": priority, "max_attempts": max_attempts}
        if in_batch:
            options["batch"] = BatchPlace(batch_id=BATCH, total=BATCH_TOTAL)
        outcomes = [self.desk.try_submit(job_id, **options).outcome for _ in range(1 + again)]
        assert outcomes == [SubmitOutcome.ACCEPTED, SubmitOutcome.EXISTS][: 1 + again]
        queue = f"{self.desk.prefix}.{MODEL}.{priority}"
        self.jobs[job_id] = ModelJob(queue, max_attempts, BATCH if in_batch else None)

    @precondition(lambda self: len(self._open()) > FEW)
    @rule(which=pick, again=twice)
    def cancel(self, which: int, again: bool) -> None:
        job_id, job = self._one_of(self._open(), which)
        expected = job.cancel()
        for _ in range(1 + again):
            assert self.desk.cancel(job_id) is expected

    # --- workers --------------------------------------------------------------------------------------

    @precondition(lambda self: self.messages)
    @rule(worker=workers, which=pick, exclusive=st.booleans(), again=twice)
    def take_and_claim(self, worker: int, which: int, exclusive: bool, again: bool) -> None:
        self.take(worker, which)
        self._claim(worker, -1, exclusive, again)

    @precondition(lambda self: self.messages)
    @rule(worker=workers, which=pick)
    def take(self, worker: int, which: int) -> None:
        """A message is taken off its list; the worker may be slow to ask, or die."""
        _, name = self.messages[which % len(self.messages)]
        text = self.desk.redis.rpop(name)
        assert text is not None
        self.taken.append((text, name))
        self.taken_tags.add(tag(text))
        self.workers[worker].hand.append(named(text))

    @precondition(lambda self: any(worker.hand for worker in self.workers))
    @rule(which=pick, exclusive=st.booleans(), again=twice)
    def claim(self, which: int, exclusive: bool, again: bool) -> None:
        able = [number for number, worker in enumerate(self.workers) if worker.hand]
        self._claim(able[which % len(able)], which // len(able), exclusive, again)

    @precondition(lambda self: self.taken)
    @rule(worker=workers, which=pick, exclusive=st.booleans(), again=twice)
    def claim_by_an_old_message(
        self, worker: int, which: int, exclusive: bool, again: bool
    ) -> None:
        """Restored by the broker and taken at once; its job may be anywhere by now."""
        text, _ = self.taken[which % len(self.taken)]
        self.workers[worker].hand.append(named(text))
        self._claim(worker, -1, exclusive, again)

    def _claim(self, worker: int, which: int, exclusive: bool, again: bool) -> None:
        hand = self.workers[worker].hand
        job_id = hand.pop(which % len(hand))
        job, token = self.jobs[job_id], new_token()
        self.tokens.append((job_id, token))
        for _ in range(1 + again):
            expected = job.claim(token, exclusive=exclusive)
            answer = self.desk.try_claim(job_id, token, exclusive=exclusive)
            assert answer.outcome is expected
            if expected is ClaimOutcome.CLAIMED:
                assert answer.record is not None
                assert answer.record.attempt == job.attempt
                self.workers[worker].held[job_id] = token
            elif expected is ClaimOutcome.ALONE and not exclusive:
                hand.append(job_id)  # it asks again once it is alone; or never, should it die

    @precondition(lambda self: any(worker.held for worker in self.workers))
    @rule()
    def renew(self) -> None:
        for worker in self.workers:
            self._renew(worker)

    def _renew(self, worker: Worker) -> None:
        held = worker.held
        lost = self.desk.renew(held)
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
    @rule(which=pick, exclusive=st.booleans(), swept=st.booleans())
    def a_holder_dies(self, which: int, exclusive: bool, swept: bool) -> None:
        for job_id, token in self._somebody_holds(which, exclusive=exclusive):
            if self.jobs[job_id].token == token:
                self._lease_runs_out(job_id)
        if swept:
            self.sweep(False, 1000)

    def _work(self) -> bool:
        return bool(self._held() or self.messages)

    def _somebody_holds(self, which: int, *, exclusive: bool) -> list[tuple[str, str]]:
        """A job and the token of who holds it, or held it; who works takes messages first. Or none."""
        worker = self.workers[which % len(self.workers)]
        while not self._held() and self.messages:
            self.take(self.workers.index(worker), which)
            self._claim(self.workers.index(worker), -1, exclusive, False)
            self.look_at_the_lists()
        held = self._held()
        return [self._one_of(held, which)] if held else []

    @precondition(lambda self: self.tokens)
    @rule(which=pick, says=st.sampled_from(["succeed", "fail", "release", "renew", "cancel"]))
    def any_token_there_ever_was_speaks(self, which: int, says: str) -> None:
        """A stalled worker may come back at any time, and a caller cancel what has ended."""
        job_id, token = self.tokens[which % len(self.tokens)]
        job = self.jobs[job_id]
        match says:
            case "release":
                self._release(job_id, token, True, False, False)
            case "renew":
                assert self.desk.renew({job_id: token}) == (set() if job.renew(token) else {token})
            case "cancel" if job.ended:
                assert self.desk.cancel(job_id) is job.cancel()
            case "succeed" | "fail":
                self._finish(job_id, token, says == "succeed", False)

    def _finish(self, job_id: str, token: str, succeeds: bool, again: bool) -> None:
        state = JobStatus.SUCCEEDED if succeeds else JobStatus.FAILED
        expected = self.jobs[job_id].finish(token, state)
        send = self.desk.succeed if succeeds else self.desk.fail
        for _ in range(1 + again):
            assert send(job_id, token) is expected
        if expected:
            self.winners.setdefault(job_id, set()).add(token)

    def _release(self, job_id: str, token: str, charged: bool, delayed: bool, again: bool) -> None:
        expected = self.jobs[job_id].release(token, charged=charged, delayed=delayed)
        for _ in range(1 + again):
            delay_s = 600.0 if delayed else 0.0
            answer = self.desk.release(job_id, token, charged=charged, delay_s=delay_s)
            assert answer is expected

    @precondition(lambda self: any(worker.held or worker.hand for worker in self.workers))
    @rule(worker=workers)
    def crash(self, worker: int) -> None:
        """Everything it knew is gone, and its leases are not renewed."""
        for job_id, token in self.workers[worker].held.items():
            if self.jobs[job_id].token == token:
                self._lease_runs_out(job_id)
        self.workers[worker] = Worker()

    # --- the broker -----------------------------------------------------------------------------------

    @precondition(lambda self: self.messages)
    @rule(which=pick, what=st.sampled_from(["lose", "double"]))
    def mistreat_a_message(self, which: int, what: str) -> None:
        text, name = self.messages[which % len(self.messages)]
        if what == "lose":
            self.desk.redis.lrem(name, 1, text)
        else:
            self.desk.redis.lpush(name, text)

    @precondition(lambda self: self.taken)
    @rule(which=pick)
    def restore_a_message(self, which: int) -> None:
        """As kombu does with what a lost connection had not acknowledged: it is the next one."""
        text, name = self.taken[which % len(self.taken)]
        self.desk.redis.rpush(name, text)

    # --- time -----------------------------------------------------------------------------------------

    def _lease_runs_out(self, job_id: str) -> None:
        self.desk.lease_runs_out(job_id)
        self.jobs[job_id].lease_over = True

    @precondition(lambda self: len(self._open()) > FEW)
    @rule(which=pick)
    def a_deadline_passes(self, which: int) -> None:
        """The job's queue_ttl_s, or its run_timeout_s while it runs."""
        job_id, job = self._one_of(self._open(), which)
        self.desk.time_is_up(job_id)
        if job.status is RUNNING:
            job.run_over = True
        else:
            job.ttl_over = True

    @precondition(lambda self: any(not job.has_message for job in self.jobs.values()))
    @rule()
    def all_waits_pass(self) -> None:
        for job_id, job in self.jobs.items():
            if job.status is QUEUED and not job.has_message:
                self.desk.backoff_passes(job_id)
                job.too_early, job.wait_over = False, True

    # --- the sweeper ----------------------------------------------------------------------------------

    @rule(aged=st.booleans(), gap_ms=st.sampled_from([1000, 1000, 60_000]))
    def sweep(self, aged: bool, gap_ms: int) -> None:
        if aged:
            self.desk.marks_age()
        self.look_at_the_lists()
        before = self._sequences()
        untouched = {tag(text) for text, _ in self.messages} - self.taken_tags
        swept = self.desk.sweep(after_ms=gap_ms)
        if gap_ms > 1000:  # Redis was away: who could not renew has a lease of grace
            for job in self.jobs.values():
                job.lease_over = False
        reaped = [job_id for job_id, job in self.jobs.items() if job.reap()]
        due = [job_id for job_id, job in self.jobs.items() if job.come_due()]
        sent = [job_id for job_id, job in self.jobs.items() if job.send_after_wait()]
        assert (swept.reaped, swept.due, swept.sent) == (len(reaped), len(due), len(sent))
        after = self._sequences()
        again = {j for j in after if j in before and after[j] != before[j]} - {*reaped, *sent}
        assert swept.sent_again == len(again)
        # A message that lies untouched on its list is not lost, however old it is.
        for job_id in again:
            assert f"{job_id}:{before[job_id]}" not in untouched

    def _sequences(self) -> dict[str, int]:
        return {
            job_id: int(sequence)
            for queue in self.queues
            for job_id, sequence in self.desk.redis.zrange(
                self.desk.key("sent", queue), 0, -1, withscores=True
            )
        }

    # --- what always holds ----------------------------------------------------------------------------

    @invariant()
    def look_at_the_lists(self) -> None:
        self.messages = [
            (text, queue) for queue in self.queues for text in self.desk.redis.lrange(queue, 0, -1)
        ]

    @invariant()
    def every_job_is_what_the_model_says(self) -> None:
        records = self._records()
        places = self._places()
        for job_id, job in self.jobs.items():
            raw, earlier = records[job_id], self.before.get(job_id)
            assert raw["status"] == job.status
            assert int(raw["attempt"]) == job.attempt
            assert int(raw["charges"]) == job.charges <= min(job.max_attempts, job.attempt)
            assert raw.get("token", "") == job.token
            assert places[job_id] == Counter(job.places)
            assert ("ended_ms" in raw) == job.ended
            if earlier:
                assert int(raw["attempt"]) >= int(earlier["attempt"])
                assert int(raw["charges"]) >= int(earlier["charges"])
                if earlier["status"] in TERMINAL:
                    assert raw == earlier
            assert len(self.winners.get(job_id, ())) <= 1
        self.before = records

    @invariant()
    def events_tell_the_history_once(self) -> None:
        events = self.desk.events()
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
        progress = self.desk.ledger.run(calls.batch_progress(self.desk.prefix, BATCH))
        assert (progress is None) == (not batch)
        if progress:
            assert progress.total == BATCH_TOTAL
            assert progress.counts == Counter(ended)
            assert len(progress.ended) == len(set(progress.ended)) == len(ended)

    def _records(self) -> dict[str, dict[str, str]]:
        with self.desk.redis.pipeline(transaction=False) as pipe:
            for job_id in self.jobs:
                pipe.hgetall(self.desk.key("job", job_id))
            return dict(zip(self.jobs, pipe.execute(), strict=True))

    def _places(self) -> dict[str, Counter[str]]:
        sets = [(name, self.desk.key(name)) for name in ("leases", "deadlines", "ended")]
        for name in ("sent", "waiting"):
            sets += [(name, self.desk.key(name, queue)) for queue in self.queues]
        with self.desk.redis.pipeline(transaction=False) as pipe:
            for _, key in sets:
                pipe.zrange(key, 0, -1)
            members = pipe.execute()
        found: dict[str, Counter[str]] = {job_id: Counter() for job_id in self.jobs}
        for (name, _), ids in zip(sets, members, strict=True):
            for job_id in ids:
                found[job_id][name] += 1
        return found

    # --- and in the end -------------------------------------------------------------------------------

    def teardown(self) -> None:
        """With sweeps and one healthy worker every job ends, whatever happened before."""
        try:
            self.workers = [Worker() for _ in self.workers]
            for _ in range(ROUNDS_TO_THE_END):
                if all(job.ended for job in self.jobs.values()):
                    break
                for job_id, _ in self._open(RUNNING):
                    self._lease_runs_out(job_id)
                self.all_waits_pass()
                self.sweep(True, 1000)
                self._work_off()
            assert {job_id for job_id, job in self.jobs.items() if not job.ended} == set()
            self.every_job_is_what_the_model_says()
            self.events_tell_the_history_once()
        finally:
            self.desk.redis.delete(*self.desk.key_names())

    def _work_off(self) -> None:
        worker = self.workers[0]
        self.look_at_the_lists()
        while self.messages:
            self.take(0, 0)
            self._claim(0, 0, True, False)
            for job_id, token in worker.held.items():
                expected = self.jobs[job_id].finish(token, JobStatus.SUCCEEDED)
                assert self.desk.succeed(job_id, token) is expected
            worker.held.clear()
            self.look_at_the_lists()

    def _open(self, *statuses: JobStatus) -> list[tuple[str, ModelJob]]:
        """Jobs that have not ended; of these states only, if any is named."""
        able = statuses or (QUEUED, RUNNING)
        return [one for one in self.jobs.items() if one[1].status in able]

    def _held(self) -> list[tuple[str, str]]:
        return [pair for worker in self.workers for pair in worker.held.items()]

    @staticmethod
    def _one_of(able: list[T], which: int) -> T:
        return able[which % len(able)]


def named(text: str) -> str:
    """The job that a message names."""
    return json.loads(json.loads(text)["body"])[0][0]


def tag(text: str) -> str:
    return json.loads(text)["properties"]["delivery_tag"]


@pytest.mark.timeout(0 if EXAMPLES else 180)
def test_the_machine_keeps_its_promises(redis_url: str) -> None:
    ledger = Ledger(redis_url)

    class Machine(LedgerMachine):
        pass

    Machine.ledger = ledger
    search = settings(
        max_examples=EXAMPLES or 70,
        stateful_step_count=STEPS,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    try:
        run_state_machine_as_test(Machine, settings=search)
    finally:
        ledger.close()
