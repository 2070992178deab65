"""What the ledger's calls cost Redis, in an empty and in a large deployment.

`python -m bench.scaling.ledger_rate` starts two Redis servers, fills them through the ledger's own
calls, and prints microseconds of processor time of Redis' main thread for each call: reading the
command, the script, the append-only file and the answer. A million divided by that is the rate of one
Redis core. Each call is measured in both deployments one right after the other. `--queued`,
`--running`, `--workers`, `--tenants` and `--models` set the large one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from bench import report
from bench.scaling.deployment import (
    Size,
    claim,
    filled,
    other,
    register_workers,
    result,
    submit,
    worker,
)
from bench.scaling.processor import us_each
from maskq.contract import JobStatus
from maskq.contract.ids import new_id
from maskq.contract.webhooks import DeliveryAttempt, DeliveryState
from maskq.ledger import Ledger, calls, keys
from maskq.ledger.calls import metrics, models, query, webhooks
from maskq.ledger.calls.deployment import overview, workers
from maskq.ledger.calls.queueing import position, tenants, waiting

LIMITS: Final = calls.Limits(max_queued=0)
SWEEP_GAP_S: Final = 0.45  # a sweep after a shorter gap does nothing
HELD: Final = 16  # jobs of a process, whose leases one call renews


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one kind of call."""

    name: str
    us: float  # of Redis' main thread, each


class Subject:
    """Measures one deployment. Its first model does the jobs that are measured."""

    def __init__(self, ledger: Ledger, size: Size, jobs: int) -> None:
        self._ledger = ledger
        self._size = size
        self._jobs = jobs
        self._model = size.names[0]

    def costs(self) -> Iterator[Cost]:
        """The hot path first, then what runs every few seconds, then commands of people."""
        yield from self._job()
        yield from self._capped()
        yield from self._webhooks()
        yield from self._upkeep()
        yield from self._reads()

    def _job(self) -> Iterator[Cost]:
        submissions = [self._submission(number) for number in range(self._jobs)]
        yield self._each("submit", submissions)
        more = [self._submission(number) for number in range(self._jobs)]
        yield self._measured("submit, 100 in a round trip", self._pipelined(more), self._jobs)
        held = [self._claimed()]
        yield self._measured("finish and claim", lambda: self._turns(held), self._jobs)
        self._ledger.run(calls.succeed(held[0].job_id, held[0].token, self._result(held[0])))
        kept = [self._claimed() for _ in range(HELD)]
        pairs = [(one.job_id, one.token) for one in kept]
        yield self._repeated(f"renew {HELD} leases", calls.renew(pairs, 3600.0), 200)
        yield self._repeated("look at a record", calls.look(kept[0].job_id), 500)
        yield self._each("cancel", [calls.cancel(one.job_id) for one in kept])

    def _turns(self, held: list[calls.Claimed]) -> None:
        """A worker's round trip for a job: end the one it holds and claim the next."""
        for _ in range(self._jobs):
            ended = calls.succeed(held[0].job_id, held[0].token, self._result(held[0]))
            _, held[0] = self._ledger.run_both(ended, claim(self._model, with_ticket=True))

    def _capped(self) -> Iterator[Cost]:
        """A tenant that runs as many jobs as it may: each end lets the next job start."""
        tenant, jobs = "capped", self._jobs // 4
        self._ledger.run(tenants.change(tenant, {"max_running": 1}))
        self._ledger.run_many([submit(self._model, tenant) for _ in range(jobs + 1)])
        held = [self._claimed_of(tenant)]

        def turns() -> None:
            for _ in range(jobs):
                ended = calls.succeed(held[0].job_id, held[0].token, self._result(held[0]))
                self._ledger.run(ended)
                held[0] = self._claimed_of(tenant)

        yield self._measured("finish, claim of a tenant at its cap", turns, jobs)

    def _claimed_of(self, tenant: str) -> calls.Claimed:
        """The oldest ready job of a tenant, by its id."""
        ready = keys.ready(self._model, "normal", tenant).within(self._ledger.prefix)
        (job_id,) = self._ledger.redis.zrange(ready, 0, 0)
        return self._ledger.run(
            calls.claim(self._model, new_id(), owner="w", lease_s=3600.0, job_id=job_id)
        )

    def _webhooks(self) -> Iterator[Cost]:
        jobs = self._jobs // 4
        url = "https://receiver.example/hook"
        each = [submit(self._model, webhook=url) for _ in range(jobs)]
        for answer in self._ledger.run_many(each):
            self._ledger.run(calls.cancel(answer.job_id))  # its event is the webhook's

        def post() -> None:
            done = 0
            while done < jobs:
                due = self._ledger.run(webhooks.due_deliveries(cap=100, hold_s=60.0))
                done += len(due)
                self._ledger.run_many([_delivered(one) for one in due])

        yield self._measured("webhook: take, record", post, jobs)

    def _upkeep(self) -> Iterator[Cost]:
        model = self._size.names[-1]
        register = models.register(worker(self._size, 0))
        register_workers(self._ledger, self._size)  # those of the filling may count as gone by now
        yield self._repeated("register a worker", register, 50)
        yield self._repeated(
            "register a worker of another model", models.register(other(model)), 50
        )
        sweep = calls.sweep(lease_s=3600.0)
        self._ledger.run(sweep)
        yield self._repeated("sweep, done by another already", calls.sweep_turn(), 200)
        yield self._spaced("sweep", sweep, 5)
        yield self._spaced("sweep that counts tickets", sweep, 3, self._forget_tickets)
        yield self._repeated("metrics", metrics.deployment_metrics(), 10)
        yield self._repeated("scale", position.demand(), 10)

    def _forget_tickets(self) -> None:
        """The next sweep counts the tickets of every model, as one sweep in five seconds does."""
        for name in self._size.names:
            state = keys.queue_state(name).within(self._ledger.prefix)
            self._ledger.redis.hdel(state, "marked_ms")

    def _reads(self) -> Iterator[Cost]:
        queued = self._ledger.run(self._submission(1)).job_id
        never = query.Filter(status=JobStatus.EXPIRED)
        reads: Sequence[tuple[str, calls.Call[Any]]] = (
            ("overview (maskq top, info)", overview.overview(LIMITS)),
            ("workers", workers.live_workers()),
            ("models", models.known(LIMITS)),
            ("tenants list", tenants.each()),
            ("tenants set, a weight", tenants.change("tenant-0000", {"weight": 2})),
            ("tenants set, a cap", tenants.change("tenant-0000", {"max_running": 10**6})),
            ("models retire, in use", models.retire(self._model)),
            ("list 50 jobs", query.jobs(query.Filter(), limit=50)),
            ("list jobs, none of 1000 matches", query.jobs(never, limit=50)),
            ("position of a job", position.place(queued)),
            ("why", waiting.why(queued)),
            ("list webhooks of a job", webhooks.deliveries(subject=queued)),
        )
        for name, call in reads:
            yield self._repeated(name, call, 5)

    def _submission(self, number: int) -> calls.Call[Any]:
        return submit(self._model, self._size.tenant(number))

    def _claimed(self) -> calls.Claimed:
        return self._ledger.run(claim(self._model))

    def _result(self, held: calls.Claimed) -> Any:
        return result(held.job_id, self._model)

    def _pipelined(self, each: Sequence[calls.Call[Any]]) -> Callable[[], None]:
        def work() -> None:
            for first in range(0, len(each), 100):
                self._ledger.run_many(each[first : first + 100])

        return work

    def _each(self, name: str, each: Sequence[calls.Call[Any]]) -> Cost:
        return self._measured(name, lambda: [self._ledger.run(call) for call in each], len(each))

    def _repeated(self, name: str, call: calls.Call[Any], times: int) -> Cost:
        self._ledger.run(call)  # the server knows the script from then on
        return self._each(name, [call] * times)

    def _spaced(
        self,
        name: str,
        call: calls.Call[Any],
        times: int,
        before: Callable[[], None] = lambda: None,
    ) -> Cost:
        """Sweeps with the pause that lets each of them do its work."""
        total = 0.0
        for _ in range(times):
            time.sleep(SWEEP_GAP_S)
            before()
            total += self._each(name, [call]).us
        return Cost(name, total / times)

    def _measured(self, name: str, work: Callable[[], object], count: int) -> Cost:
        return Cost(name, us_each(self._ledger.redis, work, count))


def _delivered(due: webhooks.DueDelivery) -> calls.Call[str]:
    attempt = DeliveryAttempt(at_ms=1_790_000_000_000, took_ms=40, status=200)
    return webhooks.delivery_tried(due, DeliveryState.DELIVERED, attempt, keep_s=60.0)


def by_turns(sizes: Sequence[Size], jobs: int) -> list[tuple[Cost, ...]]:
    """Each call's cost in each deployment, one right after the other: other work slows both alike."""
    with ExitStack() as stack:
        ledgers = [stack.enter_context(filled(size)) for size in sizes]
        pairs = zip(ledgers, sizes, strict=True)
        each = [Subject(ledger, size, jobs).costs() for ledger, size in pairs]
        return [*zip(*each, strict=True)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=2000, help="jobs that are measured")
    for name, default in (
        ("queued", 100_000), ("running", 16_000), ("workers", 1000), ("tenants", 1000), ("models", 100),
    ):  # fmt: skip
        options.add_argument(f"--{name}", type=int, default=default)
    options.add_argument("--json", action="store_true", help="write bench/results/ledger-rate.json")
    chosen = options.parse_args()
    large = Size(chosen.queued, chosen.running, chosen.workers, chosen.tenants, chosen.models)
    rows = [
        {
            "call": small.name,
            "µs, small": round(small.us, 1),
            "µs, large": round(grown.us, 1),
            "large ÷ small": round(grown.us / max(small.us, 0.1), 2),
            "a second, large": round(1e6 / max(grown.us, 0.1)),
        }
        for small, grown in by_turns((Size(), large), chosen.jobs)
    ]
    print(f"large: {large}")
    print(report.table(rows))
    if chosen.json:
        print(report.write("ledger-rate", {"large": str(large), "rows": rows}))


if __name__ == "__main__":
    main()
