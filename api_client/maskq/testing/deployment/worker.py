"""What a worker makes of a job: its result and files, or the reason why it failed."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from maskq.contract import FailureCode, JobFailure, JobRecord, JobResult, JobStatus, Output
from maskq.contract.jobs import ErrorFile
from maskq.contract.locations import S3Uri, redact
from maskq.contract.locations.allowed import has_own_form
from maskq.contract.outputs import sha256_of
from maskq.contract.storage_layout import ERROR_FILE, StorageLayout
from maskq.testing.deployment.outputs import Segmented, files_of, only, stats_of
from maskq.testing.deployment.pictures import (
    Photo,
    checked_mask,
    default_image,
    mask_of,
    photo_of,
)
from maskq.testing.deployment.plans import JobPlan

HOME = S3Uri("fake", "maskq")
LAYOUT = StorageLayout(HOME)
REVISION = "fake"


@dataclass(frozen=True, slots=True)
class Made:
    """A result and its files: URI → bytes."""

    result: JobResult
    files: dict[str, bytes] = field(default_factory=dict)


class FakeObjects:
    """What workers wrote: outputs, their copies and error files. Not thread-safe."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.writers: dict[str, JobRecord] = {}  # place of a named copy → the job that wrote it

    def add(self, record: JobRecord, made: Made) -> None:
        """Store the files of a job that succeeded. An earlier error file that it may replace goes."""
        self.bodies |= made.files
        self.writers |= dict.fromkeys(made.result.copies.values(), record)
        named = LAYOUT.of(record).named_files(record.request, record.source)
        if named and record.request.output_error_file:
            place = str(named.error_file())
            if (writer := self.writers.get(place)) and _is_replaceable(writer, record):
                del self.bodies[place], self.writers[place]

    def add_error_file(self, record: JobRecord, status: JobStatus, failure: JobFailure) -> None:
        """Store the error file of a job that failed or expired, if it has that option."""
        storage = LAYOUT.of(record)
        named = storage.named_files(record.request, record.source)
        if named is None or not record.request.output_error_file:
            return
        try:
            place = str(named.error_file())
        except ValueError:
            return
        body = ErrorFile(
            job_id=record.id,
            image_uri=record.request.redacted().image_uri,
            status=status,
            error=failure,
            copies={ERROR_FILE: place},
        ).model_dump_json(indent=2)
        self.bodies[str(storage.error_file)] = body.encode()
        writer = self.writers.get(place)
        if writer is None or _is_replaceable(writer, record):
            self.bodies[place], self.writers[place] = body.encode(), record

    def remove(self, record: JobRecord) -> None:
        """Delete what a job wrote; copies that another job replaced stay."""
        folder = f"{LAYOUT.of(record).outputs}/"
        copies = {place for place, writer in self.writers.items() if writer.id == record.id}
        for place in [one for one in self.bodies if one.startswith(folder) or one in copies]:
            del self.bodies[place]
            self.writers.pop(place, None)


def made_of(
    record: JobRecord,
    body: bytes | None,
    plan: JobPlan,
    labels: Sequence[str],
    writers: Mapping[str, JobRecord],
) -> Made | JobFailure:
    """What becomes of a job that runs to its end.

    body: the image, if it is known. writers: place of each named copy → the job that wrote it.
    """
    if plan.error:
        return plan.error
    request = record.request
    if refused := _refused_name(record):
        return refused
    photo = photo_of(default_image() if body is None else body)
    if isinstance(photo, JobFailure):
        return photo
    chosen = _chosen(request.classes, labels)
    if isinstance(chosen, JobFailure):
        return chosen
    if plan.mask:
        mask = checked_mask(plan.mask, photo.pixels.size, labels)
    else:
        identity = request.image_uri.encode() if body is None else body
        mask = mask_of(identity, photo.pixels.size, len(labels))
    if chosen is not None:
        mask = only(mask, chosen)
    classes = stats_of(mask, labels, shapes=Output.STATS in request.outputs)
    name, alpha = _file_name(record), request.overlay_alpha
    made = Segmented(photo.pixels, mask, labels, classes, alpha, name, record.id)
    stored = _stored(record, plan, photo, made)
    return _refused_copies(record, stored.result, writers) or stored


def _stored(record: JobRecord, plan: JobPlan, photo: Photo, made: Segmented) -> Made:
    request, storage = record.request, LAYOUT.of(record)
    token = urlsafe_b64encode(hashlib.sha256(record.id.encode()).digest()[:12]).decode()
    files = files_of(request.outputs, made)
    labels = {one.id: one.label for one in made.classes}
    named = storage.named_files(request, record.source)
    result = JobResult(
        width=made.mask.width,
        height=made.mask.height,
        model=record.model,
        model_revision=REVISION,
        backend="fake",
        dtype="float32",
        precision="exact",
        uncertain_share=0.0,
        outputs={
            output: redact(url)
            if (url := request.output_urls.get(output))
            else str(storage.output(token, output))
            for output in files
        },
        labels=labels,
        stats=list(made.classes) if Output.STATS in files else [],
        source_sha256=photo.sha256,
        output_sha256={output: _sha256(output, each) for output, each in files.items()},
        notes=list(photo.notes),
        timings_ms={"total": plan.takes_s * 1000},
        copies={file: str(at) for file, at in named.copies(labels).items()} if named else {},
    )
    stored = {
        str(storage.file(token, name)): content
        for output, of_output in files.items()
        if output not in request.output_urls
        for name, content in of_output.items()
    }
    stored |= {
        place: stored[str(storage.file(token, file))] for file, place in result.copies.items()
    }
    return Made(result, stored)


def _sha256(output: Output, files: Mapping[str, bytes]) -> str:
    digests = {name: hashlib.sha256(body).hexdigest() for name, body in files.items()}
    return sha256_of(output, digests)


def _refused_name(record: JobRecord) -> JobFailure | None:
    """Why output_name must not give the names that it gives with this image."""
    named = LAYOUT.of(record).named_files(record.request, record.source)
    if named is None:
        return None
    try:
        named.check()
    except ValueError as error:
        return JobFailure(code=FailureCode.INVALID_REQUEST, message=f"output_name: {error}")
    for place in (*named.copies((0,)).values(), named.error_file()):
        if has_own_form(place.key):
            text = f"output_name gives {place}, which has the form of maskq's own names"
            return JobFailure(code=FailureCode.INVALID_REQUEST, message=text)
    return None


def _refused_copies(
    record: JobRecord, result: JobResult, writers: Mapping[str, JobRecord]
) -> JobFailure | None:
    """A copy of another job stays, unless output_replace is set and that job is older."""
    for place in result.copies.values():
        writer = writers.get(place)
        if writer and not _is_replaceable(writer, record):
            text = (
                f"{place} exists, and job {writer.id} wrote it; choose another output_name "
                f"({{job_id}} makes it unique), or set output_replace to replace copies of earlier "
                f"jobs"
            )
            return JobFailure(code=FailureCode.OUTPUT_EXISTS, message=text)
    return None


def _is_replaceable(writer: JobRecord, record: JobRecord) -> bool:
    if writer.id in (record.id, record.retry_of):
        return True
    return record.request.output_replace and writer.created_ms <= record.created_ms


def _file_name(record: JobRecord) -> str:
    """The image's name in rle.json: the one that the caller gave, or the last part of the URI."""
    uri = record.request.redacted().image_uri
    if LAYOUT.of(record).is_upload(uri):
        given = record.source or ""
        uri = "" if given.startswith("s3://") else given
    return uri.rpartition("/")[2] or record.id


def _chosen(names: frozenset[str] | None, labels: Sequence[str]) -> set[int] | JobFailure | None:
    if names is None:
        return None
    known = {label: at for at, label in enumerate(labels)}
    known |= {str(at): at for at in range(len(labels))}
    for name in sorted(names - known.keys()):
        text = f"classes: the model has no class {name!r}; its classes are {', '.join(labels)}"
        return JobFailure(code=FailureCode.INVALID_REQUEST, message=text)
    return {known[name] for name in names}
