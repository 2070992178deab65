"""Several ledgers, chosen by a hash of the tenant: `python -m bench.scaling.several`.

Each of `--servers` Redis servers holds a deployment of its own. A job goes to the one that the hash of
its tenant (or, with `--by model`, of its model) names. The load follows Zipf's law: tenant number n has
1/n of the first's jobs. Prints the jobs of each server, what a job costs, and how unevenly the servers
are loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import statistics
from collections import Counter
from contextlib import ExitStack
from typing import Final

from bench import report
from bench.scaling.deployment import PREFIX, Size, register_workers, server
from bench.scaling.processor import us_each
from bench.scaling.turns import do_jobs
from maskq.ledger import Ledger

MODEL: Final = "model-000"
DRAWN: Final = 1_000_000  # jobs, of which only the spread is computed


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--servers", type=int, default=3)
    options.add_argument("--jobs", type=int, default=6000)
    options.add_argument("--tenants", type=int, default=1000)
    options.add_argument("--models", type=int, default=100)
    options.add_argument("--by", choices=("tenant", "model"), default="tenant")
    chosen = options.parse_args()
    names = names_of(chosen.by, chosen.tenants if chosen.by == "tenant" else chosen.models)
    jobs = drawn(names, chosen.jobs)
    with ExitStack() as stack:
        ledgers = [Ledger(stack.enter_context(server()).url, PREFIX) for _ in range(chosen.servers)]
        shares: list[list[str]] = [[] for _ in ledgers]
        for name in jobs:
            shares[chosen_server(name, chosen.servers)].append(name)
        rows = [row(number, ledger, shares[number]) for number, ledger in enumerate(ledgers)]
        for ledger in ledgers:
            ledger.close()
    print(report.table(rows))
    for servers in (2, 3, 4, 8, 16):
        print(f"{servers:3} servers by {chosen.by}: the busiest has {spread(names, servers):.2f} "
              f"times the mean")  # fmt: skip


def row(number: int, ledger: Ledger, names: list[str]) -> dict[str, object]:
    register_workers(ledger, Size())
    do_jobs(ledger, MODEL, names[:100])  # the server knows the scripts from then on
    before = written(ledger)
    us = us_each(ledger.redis, lambda: do_jobs(ledger, MODEL, names), len(names))
    return {
        "server": number,
        "jobs": len(names),
        "µs a job": round(us, 1),
        "jobs a second": round(1e6 / us),
        "bytes a job in the append-only file": round((written(ledger) - before) / len(names)),
    }


def written(ledger: Ledger) -> int:
    """Bytes in the append-only file."""
    return int(ledger.redis.info("persistence")["aof_current_size"])


def names_of(kind: str, count: int) -> list[str]:
    return [f"{kind}-{number:04d}" for number in range(count)]


def drawn(names: list[str], count: int) -> list[str]:
    weights = [1 / (number + 1) for number in range(len(names))]
    return random.Random(7).choices(names, weights, k=count)


def chosen_server(name: str, servers: int) -> int:
    """Rendezvous hashing: with one more server, only the names that it gets move."""
    return max(range(servers), key=lambda one: hashlib.sha256(f"{one} {name}".encode()).digest())


def spread(names: list[str], servers: int) -> float:
    """The load of the busiest server divided by the mean."""
    where = {name: chosen_server(name, servers) for name in names}
    loads = Counter(dict.fromkeys(range(servers), 0))
    for name, jobs in Counter(drawn(names, DRAWN)).items():
        loads[where[name]] += jobs
    return max(loads.values()) / statistics.fmean(loads.values())


if __name__ == "__main__":
    main()
