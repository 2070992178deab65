"""The HTTP API under load: event streams, look-ups, and what a job costs the gateway.

`python -m bench.http_api` starts a stack with one worker (a model of milliseconds) and the gateway.
Then `--streams` connections follow events (nine of ten those of one job, the rest all) while `--rate`
jobs a second are submitted for `--seconds`, and one more connection asks for a job again and again.
Printed: events missed, the time of `GET /v1/jobs/{id}`, the gateway's processor time a job. Last, jobs
one by one over HTTP and direct, by turns.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from PIL import Image

from bench import report
from bench.checkpoints import write_smallest
from maskq import Client
from maskq_standalone.stack import Stack

ENDS = "maskq.job.succeeded"
SETTLE_S = 15.0  # for the last events


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--streams", type=int, default=200)
    options.add_argument("--rate", type=float, default=20.0, help="jobs a second")
    options.add_argument("--seconds", type=float, default=20.0)
    options.add_argument(
        "--pairs", type=int, default=60, help="jobs one by one, over HTTP and direct"
    )
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = str(write_smallest(Path(folder) / "smallest"))
        with Stack(workers=1, model=model, http_api=True, log_level="WARNING") as stack:
            os.environ.update(stack.environment)
            (gateway,) = (one for one in stack.others if one.name == "gateway")
            with Client.from_env() as client:
                loads = [os.getloadavg()[0]]
                figures = loaded(client, gateway.pid, chosen)
                figures |= one_by_one(client, chosen.pairs)
                loads.append(os.getloadavg()[0])
                figures["load_before_and_after"] = ", ".join(f"{load:.1f}" for load in loads)
    print(report.write("http-api", figures))
    if chosen.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<44} {value}")


class Caller:
    """Somebody with a key and connections of their own."""

    def __init__(self) -> None:
        self.url = os.environ["MASKQ_GATEWAY_URL"]
        self._headers = {"Authorization": f"Bearer {os.environ['MASKQ_API_KEY']}"}
        self._pool = urllib3.PoolManager(retries=False, timeout=70, maxsize=4)

    def ask(self, method: str, path: str, document: Any = None) -> Any:
        body = None if document is None else json.dumps(document)
        headers = self._headers | ({"Content-Type": "application/json"} if body else {})
        answer = self._pool.request(method, self.url + path, body=body, headers=headers)
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.data.decode()}")
        return answer.json()


def loaded(client: Client, pid: int, chosen: Any) -> dict[str, Any]:
    """The figures under load."""
    caller, image = Caller(), image_uri(client)
    jobs = round(chosen.rate * chosen.seconds)
    # Streams of one job follow one that is submitted before its stream begins.
    followed = [
        caller.ask("POST", "/v1/jobs", {"image_uri": image})["id"]
        for _ in range(chosen.streams - chosen.streams // 10)
    ]
    ids: list[str] = []
    streams = Streams(followed, chosen.streams // 10)
    streams.start()
    cpu_s = cpu_of(pid)
    times: list[float] = []
    done = threading.Event()
    asking = threading.Thread(target=ask_again_and_again, args=(Caller(), followed[0], times, done))
    asking.start()
    began = time.monotonic()
    for number in range(jobs):
        time.sleep(max(0.0, began + number / chosen.rate - time.monotonic()))
        ids.append(caller.ask("POST", "/v1/jobs", {"image_uri": image})["id"])
    took_s = time.monotonic() - began
    done.set()
    asking.join()
    cpu_s = cpu_of(pid) - cpu_s
    for job_id in (*followed, *ids):  # a busy machine's worker may be behind
        client.get(job_id).wait(300)
    end = time.monotonic() + SETTLE_S
    while not streams.have_all(ids) and time.monotonic() < end:
        time.sleep(0.05)
    missed = streams.missed(ids)
    streams.stop()
    return {
        "streams": chosen.streams,
        "jobs": jobs,
        "jobs_a_second": round(jobs / took_s, 1),
        "events_missed": missed,
        "get_job_ms_p50": round(1e3 * statistics.median(times), 1),
        "get_job_ms_p99": round(1e3 * sorted(times)[int(0.99 * len(times))], 1),
        "get_job_count": len(times),
        "gateway_cpu_ms_a_job": round(1e3 * cpu_s / jobs, 2),
    }


def one_by_one(client: Client, pairs: int) -> dict[str, Any]:
    """Milliseconds from submission to the known end of a job, over HTTP and direct, by turns."""
    caller, image = Caller(), image_uri(client)

    def over_http() -> None:
        job = caller.ask("POST", "/v1/jobs?wait=30", {"image_uri": image})
        if job["status"] != "succeeded":
            raise RuntimeError(f"job {job['id']} is {job['status']}")

    def direct() -> None:
        client.submit(image).wait(30)

    times: dict[str, list[float]] = {"http": [], "direct": []}
    for number in range(pairs + 5):
        for name, work in (("http", over_http), ("direct", direct)):
            began = time.perf_counter()
            work()
            if number >= 5:
                times[name].append(1e3 * (time.perf_counter() - began))
    more = [a - b for a, b in zip(times["http"], times["direct"], strict=True)]
    return {
        "light_job_ms_http": round(statistics.median(times["http"]), 2),
        "light_job_ms_direct": round(statistics.median(times["direct"]), 2),
        "light_job_ms_more": round(statistics.median(more), 2),
    }


class Streams:
    """Event streams on an event loop of their own."""

    def __init__(self, followed: Sequence[str], of_all: int) -> None:
        self._followed = followed
        self._of_all = of_all
        self._seen: list[Counter[str]] = []  # ends, of each stream that follows all
        self._own: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._connected = threading.Semaphore(0)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Return once all are connected."""
        self._thread.start()
        for job_id in self._followed:
            self._run(f"/v1/events?since=0&job={job_id}", self._own)
        for _ in range(self._of_all):
            self._seen.append(Counter())
            self._run("/v1/events", self._seen[-1])
        for _ in range(len(self._followed) + self._of_all):
            if not self._connected.acquire(timeout=60):
                raise RuntimeError("a stream did not connect within a minute")

    def have_all(self, ids: Sequence[str]) -> bool:
        return self.missed(ids) == 0

    def missed(self, ids: Sequence[str]) -> int:
        """How many ends of jobs a stream did not see that should have."""
        of_all = sum(not seen[job_id] for seen in self._seen for job_id in ids)
        return of_all + sum(not self._own[job_id] for job_id in self._followed)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _disconnect(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self, path: str, seen: Counter[str]) -> None:
        def start() -> None:
            self._tasks.append(self._loop.create_task(self._follow(path, seen)))

        self._loop.call_soon_threadsafe(start)

    async def _follow(self, path: str, seen: Counter[str]) -> None:
        place = urlsplit(os.environ["MASKQ_GATEWAY_URL"])
        reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=2**20)
        head = (
            f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\n"
            f"Authorization: Bearer {os.environ['MASKQ_API_KEY']}\r\n\r\n"
        )
        writer.write(head.encode())
        try:
            while line := (await reader.readline()).decode():
                if line.startswith(": connected"):
                    self._connected.release()
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    if event["type"] == ENDS:
                        seen[event["subject"]] += 1
        finally:
            writer.close()


def ask_again_and_again(
    caller: Caller, job_id: str, times: list[float], done: threading.Event
) -> None:
    while not done.wait(0.01):
        began = time.perf_counter()
        caller.ask("GET", f"/v1/jobs/{job_id}")
        times.append(time.perf_counter() - began)


def image_uri(client: Client) -> str:
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 50).convert("RGB").save(buffer, "PNG")
    return client.submit(buffer.getvalue()).refresh().request.image_uri


def cpu_of(pid: int) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
