"""One deployment's ledger in the hands of a test: its calls, a look into Redis, a hand on the clock.

Redis' clock decides every rule and cannot be set, so a test that needs time to pass moves the stored
times into the past instead (`lease_runs_out`, `backoff_passes`, `marks_age`, …).

Tickets name no job, so a test has two ways to one: `take` is a worker's own, a ticket and then whatever
is next; `claim` names the job, for tests of what comes after.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from maskq.contract import FailureCode, JobFailure, JobRecord, JobResult, JobStatus, SegmentRequest
from maskq.contract.ids import new_token
from maskq.contract.tracing import TraceContext
from maskq.ledger import Ledger, calls, keys
from maskq.ledger.calls import Claimed, Limits, ReleaseOutcome, Submitted, Swept
from maskq.ledger.scripts import script
from maskq_standalone.servers.redis import RedisServer, find

MODEL = "demo"
LEASE_S = 100.0  # a test on a busy machine must never see one run out by itself
RESULT = JobResult(width=4, height=3, model=MODEL, outputs={"mask": "s3://out/1/mask.png"})
BROKEN = JobFailure(code=FailureCode.INVALID_IMAGE, message="not an image")
AWAY = JobFailure(code=FailureCode.STORE_UNAVAILABLE, message="S3 is away")
NOTHING_SWEPT = Swept(1, 0, 0, 0, 0, 0)


class LedgerHarness:
    """Calls with defaults; every name in Redis spelled here once more, as the documentation has it."""

    def __init__(self, ledger: Ledger, *, model: str | None = MODEL) -> None:
        self.ledger = ledger
        self.prefix = ledger.prefix
        self.redis: redis.Redis = ledger.redis
        self.queue = self.list_of(MODEL)
        # In order: jobs of one millisecond are taken by their names, and a test can say what is next.
        self._names = (f"job-{number:06}" for number in itertools.count(1))
        if model:
            self.serve(model)

    # --- calls ----------------------------------------------------------------------------------------

    def serve(self, model: str) -> None:
        self.ledger.run(calls.register_model(model, {"revision": "1"}))

    def try_submit(
        self,
        job_id: str | None = None,
        *,
        limits: Limits | None = None,
        idempotency: calls.Idempotency | None = None,
        batch: calls.BatchMembership | None = None,
        celery_head: str = "",
        retry_of: str = "",
        trace: TraceContext | None = None,
        in_ms: int = 0,
        expires_ms: int = 0,
        **request: Any,
    ) -> Submitted:
        """in_ms: how long it is deferred, from now."""
        call = calls.submit(
            job_id or next(self._names),
            asked(**request),
            limits or Limits(),
            idempotency=idempotency,
            batch=batch,
            celery_head=celery_head,
            retry_of=retry_of,
            trace=trace,
            not_before_ms=self.now_ms() + in_ms if in_ms else 0,
            expires_ms=expires_ms,
        )
        return self.ledger.run(call)

    def submit(self, job_id: str | None = None, **options: Any) -> str:
        submitted = self.try_submit(job_id, **options)
        assert submitted.outcome is calls.SubmitOutcome.ACCEPTED
        return submitted.job_id

    def submit_many(self, count: int, **request: Any) -> list[str]:
        """As many jobs in one round trip, the oldest first."""
        names = list(itertools.islice(self._names, count))
        wanted = asked(**request)
        submitted = self.ledger.run_many([calls.submit(name, wanted, Limits()) for name in names])
        assert {one.outcome for one in submitted} == {calls.SubmitOutcome.ACCEPTED}
        return names

    def try_claim(
        self,
        token: str | None = None,
        *,
        job_id: str = "",
        model: str = MODEL,
        lease_s: float = LEASE_S,
        exclusive: bool = False,
        with_ticket: bool = False,
    ) -> Claimed:
        """What a worker is answered that asks for the next job, or for a certain one."""
        call = calls.claim(
            model,
            token or new_token(),
            owner="worker-1",
            lease_s=lease_s,
            job_id=job_id,
            exclusive=exclusive,
            with_ticket=with_ticket,
        )
        return self.ledger.run(call)

    def claim(self, job_id: str, *, exclusive: bool = False) -> str:
        """The token of a claim of this job, which must succeed."""
        token = new_token()
        claimed = self.try_claim(token, job_id=job_id, exclusive=exclusive)
        assert claimed.outcome is calls.ClaimOutcome.CLAIMED
        return token

    def claimed_job(self, *, exclusive: bool = False, **options: Any) -> tuple[str, str]:
        """A job in a worker's hands, its ticket used, and the worker's token."""
        job_id = self.submit(**options)
        assert self.pop()
        return job_id, self.claim(job_id, exclusive=exclusive)

    def take(self, *, model: str = MODEL) -> str | None:
        """A ticket off the list and the next job for it, as a worker does; None: nothing to be had."""
        if not self.pop(model):
            return None
        record = self.try_claim(model=model).record
        return record.id if record else None

    def take_many(self, count: int) -> list[str]:
        """The next jobs in one round trip, in the order in which they are had; tickets stay."""
        claims = [
            calls.claim(MODEL, new_token(), owner="worker-1", lease_s=LEASE_S) for _ in range(count)
        ]
        records = [claimed.record for claimed in self.ledger.run_many(claims)]
        return [record.id for record in records if record]

    def renew(self, held: dict[str, str], lease_s: float = LEASE_S) -> frozenset[str]:
        return self.ledger.run(calls.renew(held.items(), lease_s))

    def succeed(self, job_id: str, token: str, result: JobResult = RESULT) -> bool:
        return self.ledger.run(calls.succeed(job_id, token, result))

    def fail(self, job_id: str, token: str, error: JobFailure = BROKEN) -> bool:
        return self.ledger.run(calls.fail(job_id, token, JobStatus.FAILED, error))

    def release(
        self,
        job_id: str,
        token: str,
        error: JobFailure = AWAY,
        *,
        charged: bool = True,
        delay_s: float = 0.0,
    ) -> ReleaseOutcome:
        call = calls.release(job_id, token, error, charged=charged, delay_s=delay_s)
        return self.ledger.run(call)

    def cancel(self, job_id: str) -> JobStatus | None:
        return self.ledger.run(calls.cancel(job_id))

    def delete(self, job_id: str) -> str:
        return self.ledger.run(calls.delete(job_id))

    def jobs(self, *, limit: int = 100, cursor: str = "", **wanted: Any) -> calls.Page:
        return self.ledger.run(calls.jobs(calls.Filter(**wanted), limit=limit, cursor=cursor))

    def sweep(
        self,
        *,
        after_ms: int | None = 1000,
        cap: int = 200,
        lease_s: float = LEASE_S,
        new_server: bool = False,
    ) -> Swept:
        """One sweep, `after_ms` since the last one (None: as it stands).

        `new_server`: of a server that has just started or became the primary.
        """
        if after_ms is not None:
            self.redis.hset(self.key("sweeper"), "swept_ms", self.now_ms() - after_ms)
        if new_server:
            self.redis.script_flush()
        else:
            self.redis.script_load(script("sweep").text)
        return self.ledger.run(calls.sweep(lease_s=lease_s, cap=cap))

    # --- looks ----------------------------------------------------------------------------------------

    def key(self, *parts: str) -> str:
        return ":".join((self.prefix, *parts))

    def now_ms(self) -> int:
        seconds, microseconds = self.redis.time()
        return seconds * 1000 + microseconds // 1000

    def record(self, job_id: str) -> JobRecord:
        record = self.ledger.run(calls.get(job_id))
        assert record is not None
        return record

    def raw(self, job_id: str) -> dict[str, str]:
        return self.redis.hgetall(keys.record(job_id).within(self.prefix))

    def list_of(self, model: str) -> str:
        return f"{self.prefix}.{model}"

    def messages(self, model: str = MODEL) -> list[dict[str, Any]]:
        """The tickets on a model's list, the next one to be taken first."""
        return [json.loads(text) for text in self.redis.lrange(self.list_of(model), 0, -1)[::-1]]

    def tickets(self, model: str = MODEL) -> int:
        return self.redis.llen(self.list_of(model))

    def pop(self, model: str = MODEL) -> bool:
        """Take a ticket off the list; it is lost if nothing is claimed for it."""
        text = self.redis.rpop(self.list_of(model))
        if text:
            assert json.loads(json.loads(text)["body"])[0] == [model]
        return text is not None

    def ready(self, level: str = "normal", tenant: str = "", model: str = MODEL) -> list[str]:
        """A tenant's jobs of a level that may run now, the next one first."""
        return self.redis.zrange(self.key("ready", model, level, tenant), 0, -1)

    def turns(self, model: str = MODEL) -> list[str]:
        """Tenants with such jobs, by weight and then the next one to be served first."""
        weights = self.redis.zrange(self.key("share-weights", model), 0, -1)
        return [
            tenant
            for weight in sorted(weights, key=int)
            for tenant in self.redis.zrange(self.key("shares", model, weight), 0, -1)
        ]

    def queued(self, model: str = MODEL) -> dict[str, int]:
        """How many jobs count as queued: '' of the model, and by tenant."""
        fields = self.redis.hgetall(self.key("queue", model)).items()
        counts = {name: int(count) for name, count in fields if name.startswith("queued")}
        return {name.removeprefix("queued").removeprefix(":"): n for name, n in counts.items()}

    def indexes(self, job_id: str) -> set[str]:
        """Names of the sorted sets that list the job, `created` aside."""
        raw = self.raw(job_id)
        ready = [raw.get(name, "") for name in ("model", "priority", "tenant")]
        names = {
            "ready": self.key("ready", *ready),
            "waiting": self.key("waiting"),
            "leases": self.key("leases"),
            "deadlines": self.key("deadlines"),
            "ended": self.key("ended"),
        }
        return {name for name, key in names.items() if self.redis.zscore(key, job_id) is not None}

    def score(self, job_id: str, *name: str) -> float | None:
        return self.redis.zscore(self.key(*name), job_id)

    def events(self, subject: str | None = None) -> list[dict[str, Any]]:
        entries = self.redis.xrange(self.key("events"))
        found = [json.loads(fields["event"]) for _, fields in entries]
        return [event for event in found if subject in (None, event["subject"])]

    def kinds(self, subject: str) -> list[str]:
        return [event["type"] for event in self.events(subject)]

    def everything(self) -> dict[str, Any]:
        """Every key of the deployment with its value: two equal ones, and nothing was written."""
        return {name: self._value(name) for name in sorted(self.key_names())}

    def everything_but_turns(self) -> dict[str, Any]:
        """`everything` without what says whose turn it is.

        A tenant leaves at the first claim that finds no job of it.
        """
        found = {}
        for name, value in self.everything().items():
            kind = name.removeprefix(f"{self.prefix}:").partition(":")[0]
            if kind in ("shares", "share-weights", "levels"):
                continue
            if kind == "queue" and isinstance(value, dict):
                turns = ("share_sum", "share_weight")
                value = {field: one for field, one in value.items() if field not in turns}
            found[name] = value
        return found

    def key_names(self) -> Iterator[str]:
        return itertools.chain(
            self.redis.scan_iter(f"{self.prefix}:*", count=1000),
            self.redis.scan_iter(f"{self.prefix}.*", count=1000),
            (name for name in [self.prefix] if self.redis.exists(name)),
        )

    def _value(self, name: str) -> Any:
        match self.redis.type(name):
            case "hash":
                return self.redis.hgetall(name)
            case "zset":
                return self.redis.zrange(name, 0, -1, withscores=True)
            case "list":
                return self.redis.lrange(name, 0, -1)
            case "set":
                return sorted(self.redis.smembers(name))
            case "stream":
                return self.redis.xrange(name)
            case _:
                return self.redis.get(name)

    # --- a hand on the clock --------------------------------------------------------------------------

    def lease_runs_out(self, job_id: str) -> None:
        self._past(job_id, "leases")

    def time_is_up(self, job_id: str) -> None:
        """The job's queue_ttl_s has passed, or its run_timeout_s while it runs."""
        self._past(job_id, "deadlines")
        if self.raw(job_id)["status"] == "queued":
            self.redis.hset(
                keys.record(job_id).within(self.prefix), "queue_deadline_ms", self.now_ms() - 1
            )

    def backoff_passes(self, job_id: str) -> None:
        self._past(job_id, "waiting")
        name = keys.record(job_id).within(self.prefix)
        if self.redis.hexists(name, "not_before_ms"):
            self.redis.hset(name, "not_before_ms", self.now_ms() - 1)

    def _past(self, job_id: str, *name: str) -> None:
        self.redis.zadd(self.key(*name), {job_id: self.now_ms() - 1}, xx=True)

    def marks_age(self, by_ms: int = 5000) -> None:
        """Whatever the sweeper noted about lost tickets, it noted so much earlier."""
        for model in self.redis.hkeys(self.key("models")):
            name = self.key("queue", model)
            if self.redis.hexists(name, "marked_ms"):
                self.redis.hincrby(name, "marked_ms", -by_ms)

    def settle(self) -> Swept:
        """Two sweeps with the grace time before each: every ticket lost by now is sent again."""
        self.marks_age()
        first = self.sweep()
        self.marks_age()
        second = self.sweep()
        return Swept(*(getattr(first, f) + getattr(second, f) for f in Swept.__slots__))


def asked(**request: Any) -> SegmentRequest:
    return SegmentRequest.model_validate({"image_uri": "s3://photos/a.png", **request})


@pytest.fixture
def harness(redis_url: str, key_prefix: str) -> Iterator[LedgerHarness]:
    """A deployment of its own on the shared server, where one model is served."""
    ledger = Ledger(redis_url, key_prefix)
    try:
        yield LedgerHarness(ledger)
    finally:
        ledger.close()


@pytest.fixture
def own_harness(
    tmp_path_factory: pytest.TempPathFactory, key_prefix: str
) -> Iterator[LedgerHarness]:
    """On a server of its own, whose configuration a test may change."""
    server = RedisServer(
        tmp_path_factory.mktemp("own"), password=secrets.token_urlsafe(), binary=find(pinned=True)
    )
    try:
        server.start()
        ledger = Ledger(server.url, key_prefix)
        yield LedgerHarness(ledger)
        ledger.close()
    finally:
        server.stop()
