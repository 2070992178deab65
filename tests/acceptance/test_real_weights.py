"""Opt-in: Intel/dpt-large-ade against the logits that transformers' own integration test publishes.

    maskq weights pull Intel/dpt-large-ade
    TEST_IMAGE=000000039769.jpg pytest -m real_weights

The image is COCO's val2017/000000039769.jpg, which is not ours to ship. Chosen by hand only: without
weights or image it fails, it does not skip.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

MODEL = "Intel/dpt-large-ade"
PUBLISHED = [[4.0480, 4.2420, 4.4360], [4.3124, 4.5693, 4.8261], [4.5768, 4.8965, 5.2163]]


@pytest.mark.real_weights
@pytest.mark.parametrize("backend", ["transformers", "auto"])
def test_the_logits_are_the_published_ones(backend: str) -> None:
    from maskq import Output
    from maskq_worker import imaging
    from maskq_worker.model import load_segmenter
    from maskq_worker.settings import WorkerSettings

    body = Path(os.environ["TEST_IMAGE"]).read_bytes()
    settings = WorkerSettings(model=MODEL, backend=backend, device="cpu", dtype="float32")
    segmenter = load_segmenter(settings)
    image = imaging.decode(body, max_pixels=settings.max_image_pixels).image
    (output,) = segmenter.run([segmenter.prepare(image, outputs=frozenset({Output.LOGITS}))])
    assert not isinstance(output, Exception)
    assert output.logits is not None
    np.testing.assert_allclose(output.logits[0, :3, :3], PUBLISHED, atol=1e-4)
