"""What the queue adds at light load: submit-to-wake minus the same stages called inline.

`make bench` runs it. One job at a time through a real stack (Valkey, S3 server, one worker process),
alternating with the same stages called one after another in this process: GET, decode, prepare,
forward and mask, encode, PUT, manifest. Both sides read and write the same S3 server with the same
image and the same checkpoint, and both have a worker's environment (`cpu_environment`). Printed, and
written to bench/results/light-load-MODEL.json: medians over the pairs, and of their differences.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from demo_scenes.scenes import draw

from bench import report
from bench.checkpoints import write_smallest
from maskq import Client
from maskq.contract import Output
from maskq.contract.locations import S3Uri
from maskq_standalone.stack import Stack
from maskq_worker import imaging, outputs
from maskq_worker.model import load_segmenter
from maskq_worker.process.cpu import cpu_environment
from maskq_worker.settings import WorkerSettings
from maskq_worker.storage.object_store import ObjectStore

WARM_UP = 5


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pairs", type=int, default=60)
    options.add_argument("--model", default="demo", help="`smallest`: one that costs milliseconds")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    if environment := cpu_environment(1):  # which OpenMP and malloc read when a process starts
        command = [sys.executable, "-m", "bench.light_load", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | environment)  # noqa: S606 - itself
    with tempfile.TemporaryDirectory() as folder:
        model = chosen.model
        if model == "smallest":
            model = str(write_smallest(Path(folder) / "smallest"))
        with Stack(workers=1, model=model, log_level="WARNING") as stack:
            os.environ.update(stack.environment)
            figures = measure(chosen.pairs)
    figures = {"model": chosen.model} | figures
    path = report.write(f"light-load-{Path(chosen.model).name}", figures)
    if chosen.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<28} {value}")
    print(path)


def measure(pairs: int) -> dict[str, object]:
    """Milliseconds: medians of both sides, and of their differences, pair by pair."""
    with Client.from_env() as client:
        body = io.BytesIO()
        draw(1, size=(640, 480)).image.save(body, "JPEG", quality=90)
        source = S3Uri("maskq", "bench/scene.jpg")
        client.objects.put(source, body.getvalue(), "image/jpeg")
        inline = _inline(source)
        queued = _queued(client, source)
        for _ in range(WARM_UP):
            queued(), inline()
        measured = [(_timed(queued), _timed(inline)) for _ in range(pairs)]
    through, beside = zip(*measured, strict=True)
    extra = sorted(a - b for a, b in measured)
    return {
        "pairs": pairs,
        "through_the_queue_ms": round(statistics.median(through), 1),
        "inline_ms": round(statistics.median(beside), 1),
        "difference_median_ms": round(statistics.median(extra), 1),
        "difference_p90_ms": round(extra[int(0.9 * len(extra))], 1),
    }


def _queued(client: Client, source: S3Uri) -> Callable[[], None]:
    return lambda: client.submit(str(source)).wait(timeout=60) and None


def _inline(source: S3Uri) -> Callable[[], None]:
    """The worker's own stages, in its order, without queue, ledger and threads."""
    settings = WorkerSettings.load()
    segmenter = load_segmenter(settings)
    home = S3Uri(settings.s3_bucket, settings.output_prefix)
    store = ObjectStore(settings.s3_endpoint_url, connections=4, home=home)
    wanted = frozenset({Output.MASK})
    number = iter(range(1_000_000))

    def stages() -> None:
        place = S3Uri("maskq", f"bench/{next(number)}")
        stored = store.get(source, max_bytes=settings.max_image_bytes)
        decoded = imaging.decode(stored.body, max_pixels=settings.max_image_pixels)
        prepared = segmenter.prepare(decoded.image, outputs=wanted)
        (output,) = segmenter.run([prepared])
        assert not isinstance(output, Exception)
        labels = segmenter.info.labels
        for artifact in outputs.encode(wanted, image=decoded.image, output=output, labels=labels):
            store.put(place / artifact.filename, artifact.body, artifact.content_type)
        store.create(place / "result.json", b"{}", "application/json")

    return stages


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


if __name__ == "__main__":
    main()
