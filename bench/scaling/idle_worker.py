"""What a worker without jobs asks of Redis and S3: `python -m bench.scaling.idle_worker`.

Its heartbeats, sweeps, retention and waits for tickets, as commands a second. Of many workers one
sweeps at a time, so the processor time of Redis is shown without the sweeps as well.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from bench import report
from bench.scaling.processor import main_thread_us, us_each
from bench.scenarios.service import running
from maskq.ledger import Ledger, calls

OWN = ("info", "config|get")  # what the measurement itself asks
OWN_CLIENTS = 1
SWEEPS = 10


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=60.0)
    chosen = options.parse_args()
    with running("smallest", null=True) as service:
        redis = service.ledger.redis
        time.sleep(2.0)
        requests, counts, used = service.requests(), sent(redis), main_thread_us(redis)
        time.sleep(chosen.seconds)
        used = main_thread_us(redis) - used
        rows = [
            {"command": name, "a second": round((count - counts.get(name, 0)) / chosen.seconds, 2)}
            for name, count in sent(redis).items()
            if count > counts.get(name, 0) and name not in OWN
        ]
        asked = dict(service.requests() - requests)
        clients = redis.info("clients")["connected_clients"]
        sweep_us = us_each(redis, lambda: spaced_sweeps(service.ledger), SWEEPS)
    print(report.table(rows))
    print(
        f"Redis' main thread: {used / chosen.seconds:.0f} µs a second; a sweep: {sweep_us:.0f} µs"
    )
    print(f"connections, with the {OWN_CLIENTS} of this measurement: {clients}")
    print(f"requests to the store in {chosen.seconds:.0f} s: {asked or 'none'}")


def spaced_sweeps(ledger: Ledger) -> None:
    """Sweeps with the pause that lets each of them do its work."""
    for _ in range(SWEEPS):
        time.sleep(0.45)
        ledger.run(calls.sweep(lease_s=15.0))


def sent(redis: Any) -> dict[str, int]:
    """Commands since the server started, those of scripts included."""
    return {
        name.removeprefix("cmdstat_"): int(each["calls"])
        for name, each in redis.info("commandstats").items()
    }


if __name__ == "__main__":
    main()
