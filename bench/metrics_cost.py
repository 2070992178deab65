"""What metrics and JSON logs cost a job: `python -m bench.metrics_cost`.

The calls of one job that has eight stages and runs alone in a batch, by turns; and the counter that the
ledger raises in the script that ends the job, on a Valkey of its own.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from maskq.contract import JobRecord, JobStatus
from maskq.inert import JsonFormatter, LogFormatter, fields
from maskq.ledger import Ledger
from maskq.ledger.prelude import prelude
from maskq.ledger.scripts import shared_text
from maskq.testing import make_record
from maskq_standalone.servers.redis import RedisServer, find
from maskq_worker.telemetry.counters import ProcessCounters
from maskq_worker.telemetry.log_fields import job_fields

TURNS, CALLS, PASSES = 15, 2000, 20_000
STAGES = ("fetch", "decode", "prepare", "model", "encode", "store", "commit", "copy")
TIMINGS = {stage: 1.25 * number for number, stage in enumerate(STAGES)}
MESSAGE = "job %s succeeded %s"


def main() -> None:
    counters, record = ProcessCounters(16), make_record()
    parts = {
        "stages": lambda: counters.job_succeeded(TIMINGS),
        "batch": lambda: counters.batch_started(1),
    }
    found = {name: measured(work) for name, work in parts.items()}
    found["ledger's counter"] = ledger_us()
    text, as_json = measured(line(LogFormatter(), record)), measured(line(JsonFormatter(), record))
    found["JSON instead of text"] = sorted(a - b for a, b in zip(as_json, text, strict=True))
    for name, times in found.items():
        print(f"{name:24} {median(times):6.2f} µs a job ({times[0]:.2f} to {times[-1]:.2f})")
    total = sum(max(0.0, median(times)) for times in found.values())
    print(f"{'together':24} {total:6.2f} µs a job")
    print(json.dumps({"us_per_job": round(total, 2), "budget_us": 80}))
    sys.exit(0 if total <= 80 else 1)


def measured(work: Callable[[], object]) -> list[float]:
    """Microseconds of processor time of a call in each turn, sorted."""
    times = []
    for _ in range(TURNS):
        began = time.thread_time()
        for _ in range(CALLS):
            work()
        times.append((time.thread_time() - began) / CALLS * 1e6)
    return sorted(times)


def line(formatter: logging.Formatter, record: JobRecord) -> Callable[[], object]:
    """Formats the line of one job."""
    made = logging.makeLogRecord(
        {"name": "maskq", "levelname": "INFO", "msg": MESSAGE, "args": (record.id, TIMINGS)}
    )
    named = partial(job_fields, record, JobStatus.SUCCEEDED, timings_ms=TIMINGS)
    vars(made).update(fields(named))
    return lambda: formatter.format(made)


def ledger_us() -> list[float]:
    """Microseconds that Redis takes to count the end of a job, in each turn."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(
            Path(folder), password=secrets.token_urlsafe(), binary=find(pinned=True)
        )
        server.start()
        ledger = Ledger(server.url, "bench")
        try:
            ledger.redis.hset("bench:models", "demo", "{}")
            return sorted(count - empty for count, empty in (turn(ledger) for _ in range(TURNS)))
        finally:
            ledger.close()
            server.stop()


def turn(ledger: Ledger) -> tuple[float, float]:
    """Microseconds of a loop's pass that counts, and of one that does nothing."""
    work = "count_end('demo', SUCCEEDED, '')"
    return loop(ledger, work), loop(ledger, "local nothing = i")


def loop(ledger: Ledger, work: str) -> float:
    """Microseconds of the server's processor time for a pass."""
    code = f"{shared_text()}\nfor i = 1, {PASSES} do {work} end"
    began = cpu_s(ledger)
    ledger.redis.eval(prelude(code) + code, 0, "bench")
    return (cpu_s(ledger) - began) / PASSES * 1e6


def cpu_s(ledger: Ledger) -> float:
    used = ledger.redis.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


if __name__ == "__main__":
    main()
