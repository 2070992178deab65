"""Waiting on one client: connections, memory, and the time from a job's end to the wake-up.

`python -m bench.waits` starts a Redis and no worker: another process ends the jobs by ledger calls. It
prints for 5,000 concurrent waits on one AsyncClient and for 500 threads on one Client: connections that
Redis counts, memory, and milliseconds from the moment before the finishing script is called to the
wake-up, with jobs that end one after another (`--rate` a second) and all at once. `--single N` measures
N waits one after another instead.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench import report
from maskq import AsyncClient, Client
from maskq.contract import JobResult
from maskq.contract.ids import new_token
from maskq.ledger import Ledger, calls
from maskq_standalone.servers.redis import RedisServer, find

PREFIX = "waits"
MODEL = "none"
IMAGE = "s3://photos/a.jpg"
RESULT = JobResult(width=1, height=1, model=MODEL)
SETTLED_S = 7.0  # until connections are counted: one round of re-reading


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tasks", type=int, default=5000)
    options.add_argument("--threads", type=int, default=500)
    options.add_argument("--rate", type=int, default=250, help="jobs that end a second")
    options.add_argument("--single", type=int, default=0, help="one wait after another, so many")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    with server() as url, ender(url) as end:
        os.environ |= {"MASKQ_REDIS_URL": url, "MASKQ_KEY_PREFIX": PREFIX}
        if chosen.single:
            figures = {
                "one wait, a thread": single(end, chosen.single),
                "one wait, a task": asyncio.run(single_task(end, chosen.single)),
            }
        else:
            figures = {
                f"{chosen.tasks} tasks": asyncio.run(tasks(url, end, chosen.tasks, chosen.rate)),
                f"{chosen.tasks} tasks, all end at once": asyncio.run(
                    tasks(url, end, chosen.tasks, 0)
                ),
                f"{chosen.threads} threads": threads(url, end, chosen.threads, chosen.rate),
                f"{chosen.threads} threads, all end at once": threads(url, end, chosen.threads, 0),
            }
    if not chosen.single:
        print(report.write("waits", figures))
    if chosen.json:
        print(json.dumps(figures))
        return
    for name, each in figures.items():
        print(f"{name:<34}" + ", ".join(f"{key} {value}" for key, value in each.items()))


@contextmanager
def server() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        started = RedisServer(
            Path(folder), password=secrets.token_urlsafe(), binary=find(pinned=True)
        )
        started.start()
        try:
            yield started.url
        finally:
            started.stop()


# --- the other process, which ends jobs -------------------------------------------------------------


@contextmanager
def ender(url: str) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=end_jobs, args=(url, there))
    process.start()
    here.recv()
    try:
        yield here
    finally:
        here.send(None)
        process.join()


def end_jobs(url: str, orders: Connection) -> None:
    """Claim as many as are ordered, say so, wait for the word, end them, and tell when each did."""
    ledger = Ledger(url, PREFIX)
    ledger.run(calls.register_model(MODEL, {}))
    orders.send("ready")
    while order := orders.recv():
        count, rate = order
        held = claimed(ledger, count)
        orders.send("claimed")
        orders.recv()
        began, ended = time.monotonic(), {}
        for number, (job_id, token) in enumerate(held):
            if rate:
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
            ended[job_id] = time.monotonic()
            ledger.run(calls.succeed(job_id, token, RESULT))
        orders.send(ended)
    ledger.close()


def claimed(ledger: Ledger, count: int) -> list[tuple[str, str]]:
    held: list[tuple[str, str]] = []
    while len(held) < count:
        tokens = [new_token() for _ in range(min(500, count - len(held)))]
        wanted = [calls.claim(MODEL, t, owner="bench:1", lease_s=600) for t in tokens]
        for token, answer in zip(tokens, ledger.run_many(wanted), strict=True):
            if answer.record:
                held.append((answer.record.id, token))
    return held


# --- many waits on one client -----------------------------------------------------------------------


async def tasks(url: str, end: Connection, count: int, rate: int) -> dict[str, Any]:
    woken: dict[str, float] = {}
    async with AsyncClient.from_env() as client:
        jobs = [s.job async for s in client.submit_each([IMAGE] * count, model=MODEL) if s.job]
        before = resident_mib()

        async def wait(job: Any) -> None:
            await job.wait(timeout=300)
            woken[job.id] = time.monotonic()

        end.send((count, rate))
        await asyncio.to_thread(end.recv)
        waiting = [asyncio.create_task(wait(job)) for job in jobs]
        await asyncio.sleep(SETTLED_S)
        used, memory = connections(url), resident_mib() - before
        with collections() as pauses:
            end.send("go")
            ended = await asyncio.to_thread(end.recv)
            await asyncio.gather(*waiting)
    return figures_of(woken, ended, used, memory) | {"longest_gc_ms": max(pauses)}


def threads(url: str, end: Connection, count: int, rate: int) -> dict[str, Any]:
    woken: dict[str, float] = {}
    with Client.from_env() as client:
        jobs = client.submit_many([IMAGE] * count, model=MODEL).jobs
        before = resident_mib()

        def wait(job: Any) -> None:
            job.wait(timeout=300)
            woken[job.id] = time.monotonic()

        end.send((count, rate))
        end.recv()
        waiting = [threading.Thread(target=wait, args=(job,)) for job in jobs]
        for thread in waiting:
            thread.start()
        time.sleep(SETTLED_S)
        used, memory = connections(url), resident_mib() - before
        with collections() as pauses:
            end.send("go")
            ended = end.recv()
            for thread in waiting:
                thread.join()
    return figures_of(woken, ended, used, memory) | {"longest_gc_ms": max(pauses)}


def figures_of(
    woken: dict[str, float], ended: dict[str, float], used: dict[str, int], memory: float
) -> dict[str, Any]:
    late_ms = [1e3 * (woken[job_id] - at) for job_id, at in ended.items()]
    span_s = max(ended.values()) - min(ended.values())
    return {
        **used,
        "memory_mib": round(memory, 1),
        "ended_a_second": round(len(ended) / span_s) if span_s else 0,
        **percentiles(late_ms),
    }


def percentiles(late_ms: Sequence[float]) -> dict[str, float]:
    ordered = sorted(late_ms)
    at = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}
    figures = {name: round(ordered[int(share * len(ordered))], 2) for name, share in at.items()}
    return {**figures, "max_ms": round(ordered[-1], 2)}


def connections(url: str) -> dict[str, int]:
    """Of this process; the ender's and the one that asks are not counted."""
    ledger = Ledger(url, PREFIX)
    found = ledger.redis.client_list()
    ledger.close()
    subscribed = [one for one in found if int(one["sub"])]
    return {"connections": len(found) - 2, "subscribed": len(subscribed)}


@contextmanager
def collections() -> Iterator[list[float]]:
    """Milliseconds of each garbage collection meanwhile, in which nobody can be woken."""
    pauses, began = [0.0], 0.0

    def note(phase: str, _: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        else:
            pauses.append(round(1e3 * (time.perf_counter() - began), 1))

    gc.callbacks.append(note)
    try:
        yield pauses
    finally:
        gc.callbacks.remove(note)


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- one wait after another -------------------------------------------------------------------------


def single(end: Connection, count: int) -> dict[str, float]:
    late_ms = []
    with Client.from_env() as client:
        for _ in range(count):
            job = client.submit(IMAGE, model=MODEL)
            end.send((1, 0))
            end.recv()
            said = threading.Timer(0.02, end.send, ("go",))
            said.start()
            job.wait(timeout=60)
            woken = time.monotonic()
            (at,) = end.recv().values()
            late_ms.append(1e3 * (woken - at))
            said.join()
    return percentiles(late_ms)


async def single_task(end: Connection, count: int) -> dict[str, float]:
    late_ms = []
    async with AsyncClient.from_env() as client:
        for _ in range(count):
            job = await client.submit(IMAGE, model=MODEL)
            end.send((1, 0))
            end.recv()
            asyncio.get_running_loop().call_later(0.02, end.send, "go")
            await job.wait(timeout=60)
            woken = time.monotonic()
            (at,) = end.recv().values()
            late_ms.append(1e3 * (woken - at))
    return percentiles(late_ms)


if __name__ == "__main__":
    main()
