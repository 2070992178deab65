"""Does a webhook receiver that is slow, or dead, delay jobs? Jobs a second with and without one.

`python -m bench.slow_receiver`. Rounds of jobs through a real stack (Valkey, S3 server, one worker
process, one process that posts webhooks), by turns: without a webhook, to a receiver that takes each
delivery and never answers, and to a port where nobody listens. Printed: the median rate of each, and
its ratio to the rate without.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import socket
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo_scenes.scenes import draw

from bench.checkpoints import write_smallest
from maskq import Client
from maskq.contract.locations import S3Uri
from maskq_standalone.stack import Stack


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--jobs", type=int, default=60, help="in a round")
    options.add_argument("--model", default="demo", help="`smallest`: one that costs milliseconds")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, _receivers() as urls:
        model = chosen.model
        if model == "smallest":
            model = str(write_smallest(Path(folder) / "smallest"))
        env = {"MASKQ_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1"}
        with Stack(workers=1, model=model, webhooks=True, log_level="ERROR", env=env) as stack:
            os.environ.update(stack.environment)
            rates = measure(urls, chosen.rounds, chosen.jobs)
    plain = statistics.median(rates["without"])
    figures: dict[str, object] = {"model": chosen.model, "rounds": chosen.rounds}
    for name, each in rates.items():
        rate = statistics.median(each)
        figures[name] = {"jobs_a_second": round(rate, 2), "ratio": round(rate / plain, 3)}
    print(json.dumps(figures, indent=2))


def measure(urls: dict[str, str | None], rounds: int, jobs: int) -> dict[str, list[float]]:
    """Jobs a second of each round, by kind of receiver."""
    rates: dict[str, list[float]] = defaultdict(list)
    with Client.from_env() as client:
        body = io.BytesIO()
        draw(1, size=(640, 480)).image.save(body, "JPEG", quality=90)
        source = S3Uri("maskq", "bench/scene.jpg")
        client.objects.put(source, body.getvalue(), "image/jpeg")
        _rate(client, source, jobs // 4, None)  # warm
        for _ in range(rounds):
            for name, url in urls.items():
                rates[name].append(_rate(client, source, jobs, url))
    return rates


def _rate(client: Client, source: S3Uri, jobs: int, url: str | None) -> float:
    began = time.perf_counter()
    batch = client.submit_many([str(source)] * jobs, webhook=url)
    for job in batch.as_completed():
        job.result()
    return jobs / (time.perf_counter() - began)


@contextmanager
def _receivers() -> Iterator[dict[str, str | None]]:
    """One whose system accepts connections and nobody reads; a port that was closed again."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = closed.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as silent:
        slow = silent.getsockname()[1]
        yield {
            "without": None,
            "silent": f"http://127.0.0.1:{slow}/",
            "dead": f"http://127.0.0.1:{dead}/",
        }


if __name__ == "__main__":
    main()
