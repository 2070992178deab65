"""A plain Celery app: `maskq.segment` by name, then a task of one's own. Nothing of maskq is imported.

maskq up --env-file maskq.env &
set -a; . ./maskq.env; set +a      # once it says 'all ready'
celery --workdir examples -A celery_chain worker -P solo -Q shop &
python examples/celery_chain.py s3://maskq/photo.jpg
"""

from __future__ import annotations

import os
import sys
from typing import Any

from celery import Celery, chain

URL = os.environ["MASKQ_REDIS_URL"]
app = Celery("shop", broker=URL, backend=URL)
app.conf.task_default_queue = "shop"


@app.task(name="shop.largest")
def largest(result: dict[str, Any]) -> str:
    """What covers most of the picture."""
    first = result["stats"][0]
    return f"{first['label']} {first['share']:.0%}"


def main(image_uri: str) -> None:
    request = {"image_uri": image_uri, "outputs": ["mask", "stats"]}
    segment = app.signature("maskq.segment", args=[request], queue="maskq")
    # maskq's worker sends the second task, and does not know this app's default queue: name it.
    then = largest.s().set(queue="shop")
    print(chain(segment, then).apply_async().get(timeout=300))


if __name__ == "__main__":
    main(*sys.argv[1:])
