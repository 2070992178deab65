"""What a worker makes of a job: its result and files, or the reason why it failed."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field

from maskq.contract import FailureCode, JobFailure, JobRecord, JobResult, Output
from maskq.contract.locations import S3Uri, redact
from maskq.contract.storage_layout import StorageLayout
from maskq.testing.deployment.outputs import Segmented, files_of, only, stats_of
from maskq.testing.deployment.pictures import checked_mask, mask_of, photo_of
from maskq.testing.deployment.plans import JobPlan

HOME = S3Uri("fake", "maskq")
LAYOUT = StorageLayout(HOME)
REVISION = "fake"


@dataclass(frozen=True, slots=True)
class Made:
    """A result and its files: URI → bytes."""

    result: JobResult
    files: dict[str, bytes] = field(default_factory=dict)


def made_of(
    record: JobRecord, body: bytes | None, plan: JobPlan, labels: Sequence[str]
) -> Made | JobFailure:
    """What becomes of a job that runs to its end. body: the image, if it is known."""
    if plan.error:
        return plan.error
    request = record.request
    photo = photo_of(body)
    if isinstance(photo, JobFailure):
        return photo
    chosen = _chosen(request.classes, labels)
    if isinstance(chosen, JobFailure):
        return chosen
    size = photo.pixels.size
    if plan.mask:
        mask = checked_mask(plan.mask, size, labels)
    else:
        identity = body if body is not None else request.image_uri.encode()
        mask = mask_of(identity, size, len(labels))
    if chosen is not None:
        mask = only(mask, chosen)
    with_stats = Output.STATS in request.outputs
    classes = stats_of(mask, labels, shapes=with_stats)
    name = request.image_uri.rpartition("/")[2]
    alpha = request.overlay_alpha
    made = Segmented(photo.pixels, mask, labels, classes, alpha, name, record.id)
    token = urlsafe_b64encode(hashlib.sha256(record.id.encode()).digest()[:12]).decode()
    storage = LAYOUT.of(record)
    result = JobResult(
        width=size[0],
        height=size[1],
        model=record.model,
        model_revision=REVISION,
        backend="fake",
        dtype="float32",
        outputs={
            output: redact(url)
            if (url := request.output_urls.get(output))
            else str(storage.output(token, output))
            for output in Output
            if output in request.outputs
        },
        labels={one.id: one.label for one in classes},
        stats=classes if with_stats else [],
        notes=list(photo.notes),
        timings_ms={"total": plan.takes_s * 1000},
    )
    files = {
        str(storage.file(token, name)): content
        for output, named in files_of(request.outputs, made).items()
        if output not in request.output_urls
        for name, content in named.items()
    }
    return Made(result, files)


def _chosen(names: frozenset[str] | None, labels: Sequence[str]) -> set[int] | JobFailure | None:
    if names is None:
        return None
    known = {label: at for at, label in enumerate(labels)}
    known |= {str(at): at for at in range(len(labels))}
    for name in sorted(names - known.keys()):
        text = f"classes: the model has no class {name!r}; its classes are {', '.join(labels)}"
        return JobFailure(code=FailureCode.INVALID_REQUEST, message=text)
    return {known[name] for name in names}
