"""A plain Celery app: maskq.segment in a chain, a group and a chord, and what it does with errors.

It knows `maskq.segment` by name; only the class of its errors is imported from maskq.

maskq up --env-file maskq.env &
set -a; . ./maskq.env; set +a      # once it says 'all ready'
celery --workdir examples -A celery_workflows worker -P solo -Q shop &
AWS_ENDPOINT_URL=$MASKQ_S3_ENDPOINT_URL aws s3 cp photo.jpg s3://maskq/photo.jpg
python examples/celery_workflows.py s3://maskq/photo.jpg s3://maskq/no-such-photo.jpg
"""

from __future__ import annotations

import os
import sys
from typing import Any

from celery import Celery, Signature, chain, chord, group

from maskq import SegmentRefused

URL = os.environ["MASKQ_REDIS_URL"]
app = Celery("shop", broker=URL, backend=URL)
# maskq's worker sends the task that follows, and does not know this default: such tasks name it.
app.conf.task_default_queue = "shop"


@app.task(name="shop.largest")
def largest(result: dict[str, Any]) -> str:
    """What covers most of the picture."""
    first = result["stats"][0]
    return f"{first['label']} {first['share']:.0%}"


@app.task(name="shop.pixels")
def pixels(results: list[dict[str, Any]]) -> int:
    """The pixels of all masks."""
    return sum(result["width"] * result["height"] for result in results)


@app.task(name="shop.failed")
def failed(task_id: str) -> None:
    """Called from another worker, an errback gets the id of the task that failed, and no more."""
    print(f"failed: {app.AsyncResult(task_id).result}")


def segment(image_uri: str) -> Signature:
    request = {"image_uri": image_uri, "outputs": ["mask", "stats"]}
    return app.signature("maskq.segment", args=[request], queue="maskq")


def main(image_uri: str, broken_uri: str) -> None:
    shop = {"queue": "shop"}
    print("chain:", chain(segment(image_uri), largest.s().set(**shop)).apply_async().get(300))

    results = group(segment(image_uri) for _ in range(2)).apply_async().get(300)
    print("group:", sum(len(result["labels"]) > 0 for result in results), "masks")

    header = [segment(image_uri) for _ in range(2)]
    print("chord:", chord(header)(pixels.s().set(**shop)).get(300), "pixels")

    try:
        segment(broken_uri).on_error(failed.s().set(**shop)).apply_async().get(300)
    except SegmentRefused as error:
        print("error:", error.code)


if __name__ == "__main__":
    main(*sys.argv[1:])
