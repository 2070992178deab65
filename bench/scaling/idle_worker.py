"""What a worker without jobs asks of Redis and S3: `python -m bench.scaling.idle_worker`.

Its heartbeats, sweeps, retention and waits for tickets, as commands a second. Of many workers one
sweeps at a time, so the processor time of Redis is shown without the sweeps as well.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from bench import report
from bench.scaling.processor import main_thread_us
from bench.scenarios.service import running

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
        asked = {
            name: count / chosen.seconds for name, count in (service.requests() - requests).items()
        }
    print(report.table(rows))
    print(
        f"Redis' main thread: {used / chosen.seconds:.0f} µs a second, of it some 150 of an idle server"
    )
    print(f"requests to the store, a second: {asked or 'none'}")


def sent(redis: Any) -> dict[str, int]:
    """Commands since the server started, those of scripts included."""
    return {
        name.removeprefix("cmdstat_"): int(each["calls"])
        for name, each in redis.info("commandstats").items()
    }


if __name__ == "__main__":
    main()
