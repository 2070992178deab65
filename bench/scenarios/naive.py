"""The worker that one writes first: a Celery task as the tutorials have it. Compared with in `null`.

Prefork, acknowledged, results in Redis, boto3, transformers' own processor and post-processing; the
scores are fixed, as the null model's are. No ledger, no leases, no manifest, no events: it loses jobs.
"""

from __future__ import annotations

import functools
import io
import os
from typing import Any

from celery import Celery

app = Celery("naive", broker=os.environ["MASKQ_REDIS_URL"], backend=os.environ["MASKQ_REDIS_URL"])
app.conf.task_default_queue = "naive"
app.conf.broker_connection_retry_on_startup = True


@app.task
def segment(bucket: str, key: str, target: str) -> dict[str, str]:
    from PIL import Image

    body = store().get_object(Bucket=bucket, Key=key)["Body"].read()
    image = Image.open(io.BytesIO(body)).convert("RGB")
    processor, outputs = model()
    processor(images=image, return_tensors="pt")
    size = (image.height, image.width)
    mask = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0]
    png = io.BytesIO()
    Image.fromarray(mask.numpy().astype("uint8")).save(png, "PNG")
    store().put_object(Bucket=bucket, Key=target, Body=png.getvalue(), ContentType="image/png")
    return {"mask": f"s3://{bucket}/{target}"}


@functools.cache
def store() -> Any:
    """One a process; a client for each task would cost 11 ms more."""
    import boto3

    return boto3.client("s3", endpoint_url=os.environ["MASKQ_S3_ENDPOINT_URL"])


@functools.cache
def model() -> tuple[Any, Any]:
    """The processor, and scores for one image as a network of 8 classes would give them."""
    import torch
    from transformers.modeling_outputs import SemanticSegmenterOutput
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    processor = DPTImageProcessorPil(size={"height": 32, "width": 32}, keep_aspect_ratio=False)
    scores = torch.randn(1, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    return processor, SemanticSegmenterOutput(logits=scores)
