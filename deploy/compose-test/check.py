"""Runs beside the services, as a backend with Redis and S3: jobs through the queue, scored."""

import numpy as np

from maskq import Client
from maskq_standalone.commands.pictures import shipped_scenes
from maskq_standalone.demo.score import mean_iou

SCENES, LEAST = 6, 0.8  # far above any guess: the masks are of these images

scenes = shipped_scenes(SCENES)
with Client.from_env() as client:
    batch = client.submit_many([scene.image for scene in scenes])
    ended = list(batch.as_completed(timeout=120))
    pairs = [
        (scene.truth, np.asarray(job.wait(timeout=1).mask()))
        for scene, job in zip(scenes, batch.jobs, strict=True)
    ]
score = mean_iou(pairs)
print(f"{len(ended)} jobs succeeded, mean IoU {score:.3f}")
assert len(ended) == SCENES
assert score >= LEAST
