"""What HTTP adds to a light job: submit-to-wake by the gateway minus the same directly.

`python -m bench.over_http`. One job at a time through a real stack (Valkey, S3 server, one worker with
the smallest model, the gateway as a process of its own), by turns over HTTP and directly. The image is
sent with each job. Printed: medians over the pairs and of their differences, the processor time of
client and gateway for a job, and the machine's load.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

from demo_scenes.scenes import draw

from bench.checkpoints import write_smallest
from bench.http_api import cpu_of
from maskq import Client
from maskq_standalone.stack import Stack

WARM_UP = 5
CPU_JOBS = 30


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pairs", type=int, default=60)
    pairs = options.parse_args().pairs
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        model = str(write_smallest(Path(folder) / "smallest"))
        with Stack(workers=1, model=model, http_api=True, log_level="WARNING") as stack:
            os.environ.update(stack.environment)
            with (
                Client.from_env(transport="direct") as direct,
                Client.from_env(transport="http") as over_http,
            ):
                (gateway,) = (one for one in stack.others if one.name == "gateway")
                figures = measure(direct, over_http, pairs, gateway.pid)
    figures["load_before_and_after"] = f"{before:.1f}, {os.getloadavg()[0]:.1f}"
    for name, value in figures.items():
        print(f"{name:<28} {value}")


def measure(direct: Client, over_http: Client, pairs: int, gateway_pid: int) -> dict[str, object]:
    """Milliseconds: medians of both ways, and of their differences, pair by pair."""
    body = io.BytesIO()
    draw(1, size=(640, 480)).image.save(body, "JPEG", quality=90)
    image = body.getvalue()
    for _ in range(WARM_UP):
        _timed(direct, image), _timed(over_http, image)
    measured = []
    for number in range(pairs):
        if number % 2:
            slow, fast = _timed(over_http, image), _timed(direct, image)
        else:
            fast, slow = _timed(direct, image), _timed(over_http, image)
        measured.append((slow, fast))
    before_s = cpu_of(gateway_pid)
    client_cpu_ms = _cpu_ms(over_http, image)
    gateway_cpu_ms = 1e3 * (cpu_of(gateway_pid) - before_s) / CPU_JOBS
    by_http, by_redis = zip(*measured, strict=True)
    extra = sorted(slow - fast for slow, fast in measured)
    return {
        "pairs": pairs,
        "over_http_ms": round(statistics.median(by_http), 1),
        "direct_ms": round(statistics.median(by_redis), 1),
        "ratio": round(statistics.median(slow / fast for slow, fast in measured), 2),
        "difference_median_ms": round(statistics.median(extra), 1),
        "difference_p90_ms": round(extra[int(0.9 * len(extra))], 1),
        "client_cpu_over_http_ms": round(client_cpu_ms, 1),
        "gateway_cpu_ms": round(gateway_cpu_ms, 1),
        "client_cpu_direct_ms": round(_cpu_ms(direct, image), 1),
    }


def _timed(client: Client, image: bytes) -> float:
    start = time.perf_counter()
    client.submit(image).wait(timeout=60)
    return (time.perf_counter() - start) * 1000


def _cpu_ms(client: Client, image: bytes) -> float:
    """Processor time of this process for one job."""
    start = time.process_time()
    for _ in range(CPU_JOBS):
        _timed(client, image)
    return (time.process_time() - start) * 1000 / CPU_JOBS


if __name__ == "__main__":
    main()
