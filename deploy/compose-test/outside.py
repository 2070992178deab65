"""Runs outside the services' networks: jobs over HTTP with an API key, scored.

`outside.py run N` submits N jobs and prints `HALF` when a tenth is done, then `JOB SHA256` of one mask.
`outside.py read JOB SHA256` reads that job and its mask again.
"""

import hashlib
import sys

import numpy as np

from maskq import Client
from maskq_standalone.commands.pictures import shipped_scenes
from maskq_standalone.demo.score import mean_iou

LEAST = 0.8  # far above any guess: the masks are of these images


def run(client: Client, count: int) -> None:
    scenes = shipped_scenes(min(count, 20))
    images = [scenes[number % len(scenes)] for number in range(count)]
    batch = client.submit_many([scene.image for scene in images])
    ended = []
    for job in batch.as_completed(timeout=1200):
        ended.append(job.id)
        if len(ended) == max(1, count // 10):
            print("STARTED", flush=True)
    assert len(set(ended)) == count, f"{len(set(ended))} of {count} jobs ended"
    # as_completed would have raised for a job that failed; wait() raises as well.
    pairs = [
        (scene.truth, np.asarray(job.wait(timeout=1).mask()))
        for scene, job in zip(images, batch.jobs, strict=True)
    ]
    score = mean_iou(pairs)
    assert score >= LEAST, f"mean IoU {score:.3f}"
    attempts = [job.refresh().attempt for job in batch.jobs]
    again = sum(attempt > 1 for attempt in attempts)
    print(f"SUCCEEDED {count} jobs over HTTP, {again} in a second attempt, mean IoU {score:.3f}")
    print("MASK", batch.jobs[0].id, digest(client, batch.jobs[0].id), flush=True)


def digest(client: Client, job: str) -> str:
    return hashlib.sha256(np.asarray(client.get(job).wait(timeout=5).mask()).tobytes()).hexdigest()


with Client() as client:
    match sys.argv[1:]:
        case ["run", count]:
            run(client, int(count))
        case ["read", job, wanted]:
            found = digest(client, job)
            assert found == wanted, f"the mask of {job} is another one: {found}"
            print(f"READ {job} and its mask again")
        case _:
            sys.exit(__doc__)
