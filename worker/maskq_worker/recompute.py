"""Makes the outputs of a result again, for `maskq verify --recompute`. Needs no Redis and no S3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from maskq.contract import Output, SegmentRequest
from maskq.contract.jobs import Manifest
from maskq.contract.locations.output_places import STORED
from maskq.errors import InvalidRequest
from maskq_worker import outputs
from maskq_worker.decoding import DecodeLimits, ThreadDecoder
from maskq_worker.errors import JobError
from maskq_worker.jobs.stages import coco_source, encode
from maskq_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from maskq_worker.model import ModelInfo, Segmenter


def recompute(manifest: Manifest, image: bytes) -> dict[Output, dict[str, bytes]]:
    """Segment an image with the options of a result, and the model of the worker's settings.

    Returns output → file name → bytes. Raises InvalidRequest if the model is not the result's, or if
    the image cannot be segmented; ModelError if the model cannot be loaded.
    """
    from maskq_worker.model import load_segmenter, warm_up

    request = _request_of(manifest)
    settings = WorkerSettings.load()
    segmenter = load_segmenter(settings)
    try:
        _refuse_other(segmenter.info, manifest)
        warm_up(segmenter)
        return _made(manifest, request, image, segmenter, DecodeLimits.of(settings))
    except JobError as error:
        raise InvalidRequest(f"the image cannot be segmented here: {error.message}") from error
    finally:
        segmenter.close()


def _request_of(manifest: Manifest) -> SegmentRequest:
    try:
        return SegmentRequest.model_validate(manifest.request, context=STORED)
    except ValidationError:
        raise InvalidRequest(
            "the result does not state the options of its job: an older version of maskq wrote it"
        ) from None


def _refuse_other(info: ModelInfo, manifest: Manifest) -> None:
    """Raise InvalidRequest unless weights, backend and precision are those of the result."""
    for what, setting, here, there in (
        ("weights", "MASKQ_MODEL and MASKQ_MODEL_REVISION", info.revision, manifest.model_revision),
        ("backend", "MASKQ_BACKEND and MASKQ_DEVICE", info.backend, manifest.backend),
        ("precision", "MASKQ_DTYPE", info.dtype, manifest.dtype),
    ):
        if here != there:
            raise InvalidRequest(
                f"the result was made with other {what}: {there} of model {manifest.model!r}, and this "
                f"machine loads {here} of {info.name!r}; set {setting}"
            )


def _made(
    manifest: Manifest,
    request: SegmentRequest,
    image: bytes,
    segmenter: Segmenter,
    limits: DecodeLimits,
) -> dict[Output, dict[str, bytes]]:
    decoded = ThreadDecoder(limits).decode(image, lambda _: None)
    prepared = segmenter.prepare(
        decoded.image, outputs=outputs.model_outputs(request.outputs), mode=request.mode
    )
    (output,) = segmenter.run([prepared])
    if isinstance(output, Exception):
        raise output
    labels = segmenter.info.labels
    encoded = encode(
        request,
        decoded,
        output,
        outputs.chosen(request.classes, labels),
        labels=labels,
        source=coco_source(manifest.job_id or "", request, manifest.source, manifest.source_etag),
    )
    files: dict[Output, dict[str, bytes]] = {output: {} for output in request.outputs}
    for artifact in encoded.artifacts:
        files[artifact.output][artifact.filename] = artifact.body
    return files
