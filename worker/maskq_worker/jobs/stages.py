"""The stages of a job: fetch, decode, prepare, segment, encode, store, commit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from maskq.contract import JobRecord, JobResult, Output, SegmentRequest
from maskq.contract.jobs import ClassStats
from maskq.contract.locations import PrivateUrls, S3Uri, is_url, redact
from maskq.contract.locations.source import object_metadata, source_of, version_read
from maskq.contract.outputs import StoredOutput, per_class
from maskq.contract.storage_layout import INPUT, JobStorage
from maskq_worker import outputs
from maskq_worker.copies.named_copies import NamedCopies
from maskq_worker.decoding import KEPT_PIXEL_BYTES
from maskq_worker.jobs.leases import HeldJob
from maskq_worker.jobs.manifest import Manifests, manifest_of
from maskq_worker.jobs.memory_budget import MemoryBudget, Reservation
from maskq_worker.outputs import Artifact
from maskq_worker.storage.object_store import ObjectStore, StoredObject
from maskq_worker.storage.presigned import Presigned
from maskq_worker.telemetry.stopwatch import StageListener, Stopwatch

if TYPE_CHECKING:
    from maskq_worker.batching.batcher import MicroBatcher
    from maskq_worker.decoding import Decoder
    from maskq_worker.imaging import Decoded
    from maskq_worker.model import ModelInfo, ModelInput, ModelOutput, PendingOutput, Segmenter
    from maskq_worker.settings import WorkerSettings


class Stages:
    """Shared by the job threads of a process."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        store: ObjectStore,
        decoder: Decoder,
        segmenter: Segmenter,
        batcher: MicroBatcher[ModelInput, PendingOutput],
    ) -> None:
        self._settings = settings
        self._layout = settings.layout
        self._store = store
        self._decoder = decoder
        self._presigned = Presigned(settings.presigned_allowed_hosts, store.breaker)
        self._segmenter = segmenter
        self._batcher = batcher
        self._manifests = Manifests(store)
        self._copies = NamedCopies(store)
        self._memory_budget = MemoryBudget(settings.max_decoded_bytes)

    def run(
        self, record: JobRecord, urls: PrivateUrls, held: HeldJob, times: Stopwatch
    ) -> JobResult:
        """Run all stages. Returns the job's result, which may be that of an earlier attempt.

        times: measures them. Raises JobError, LeaseLost, and what the batcher raises.
        """
        attempt = _Attempt(self._layout.of(record), record, urls, held)
        job = attempt.job
        # First, so that nothing is computed that cannot be stored.
        self._store.check_writable(job)
        self._store.check_open(job.outputs.bucket)
        with times, self._memory_budget.reservation() as memory:
            times.begin("fetch")
            if record.attempt > 1 and (earlier := self._manifests.find(job, record)):
                return self._copies.publish(job, record, earlier, memory.take)
            self._copies.check(job, record)
            classes = outputs.chosen(record.request.classes, self._segmenter.info.labels)
            result, is_own = self._segment(attempt, classes, memory, times)
            if result.copies:  # the image and its outputs are freed by now
                times.begin("copy")
                self._copies.publish(job, record, result, memory.take)
        if not is_own:
            return result
        # Only the record has all timings: the manifest cannot contain how long its own writing took.
        return result.model_copy(update={"timings_ms": times.milliseconds})

    def _segment(
        self,
        attempt: _Attempt,
        classes: frozenset[int] | None,
        memory: Reservation,
        times: Stopwatch,
    ) -> tuple[JobResult, bool]:
        """The committed result, and whether it is this attempt's.

        memory: what the image takes, reserved until it is freed.
        """
        stored = self._fetch(attempt)
        times.begin("decode")
        decoded = self._decode(stored, memory)
        times.begin("prepare")
        prepared = self._prepare(attempt, decoded)
        times.begin("model")
        attempt.held.check()
        output, sha256 = self._compute(prepared, stored, times.listener)
        times.begin("encode")
        attempt.held.check()
        encoded = self._encode(attempt, stored, decoded, output, classes)
        times.begin("store")
        places = self._write(attempt, stored, encoded)
        times.begin("commit")
        attempt.held.check()
        notes = [*decoded.notes, *prepared.notes]
        result = self._result(attempt, stored, sha256, decoded, encoded, places, times, notes)
        return self._commit(attempt, stored, prepared, encoded, result)

    def _fetch(self, attempt: _Attempt) -> StoredObject:
        request, max_bytes = attempt.record.request, self._settings.max_image_bytes
        uri = attempt.urls.image_uri or request.image_uri
        if is_url(uri):
            return StoredObject(*self._presigned.get(uri, max_bytes=max_bytes))
        return self._store.get(
            S3Uri.parse(uri),
            max_bytes=max_bytes,
            version_id=request.image_version_id,
            etag=request.image_etag,
            job=attempt.job,
        )

    def _decode(self, stored: StoredObject, memory: Reservation) -> Decoded:
        """Reserve memory for decoding, and afterwards only for the pixels."""
        decoded = self._decoder.decode(stored.body, memory.take)
        memory.shrink(decoded.image.width * decoded.image.height * KEPT_PIXEL_BYTES)
        return decoded

    def _prepare(self, attempt: _Attempt, decoded: Decoded) -> ModelInput:
        request = attempt.record.request
        return self._segmenter.prepare(
            decoded.image, outputs=outputs.model_outputs(request.outputs), mode=request.mode
        )

    def _compute(
        self, prepared: ModelInput, stored: StoredObject, listener: StageListener
    ) -> tuple[ModelOutput, str]:
        """Wait for the batch. Returns its output, and the image's SHA-256, computed meanwhile."""
        pending = self._batcher.submit(prepared, listener.forward_started)
        sha256 = hashlib.sha256(stored.body).hexdigest()
        output = pending.result()
        listener.forward_ended()
        return output.wait(), sha256

    def _encode(
        self,
        attempt: _Attempt,
        stored: StoredObject,
        decoded: Decoded,
        output: ModelOutput,
        classes: frozenset[int] | None,
    ) -> Encoded:
        record = attempt.record
        return encode(
            record.request,
            decoded,
            output,
            classes,
            labels=self._segmenter.info.labels,
            source=coco_source(record.id, record.request, record.source, stored.etag),
        )

    def _write(
        self, attempt: _Attempt, stored: StoredObject, encoded: Encoded
    ) -> dict[StoredOutput, str]:
        """Store the files. Returns where each output is, without the secrets of presigned URLs."""
        job, request, held = attempt.job, attempt.record.request, attempt.held
        places: dict[StoredOutput, str] = {}
        metadata = object_metadata(job.job_id, _source_read(attempt.record, stored))
        for artifact in encoded.artifacts:
            plain = request.output_urls.get(artifact.output, "")
            if url := attempt.urls.output_urls.get(artifact.output, plain):
                self._presigned.put(url, artifact.body, artifact.content_type)
                places[artifact.output] = redact(url)
                continue
            at = job.file(held.token, artifact.filename)
            held.add_written(at)
            self._store.put(at, artifact.body, artifact.content_type, metadata=metadata, job=job)
            places[artifact.output] = str(job.output(held.token, artifact.output))
        for output in per_class(request.outputs):  # also if no class has a file
            places[output] = str(job.output(held.token, output))
        return places

    def _commit(
        self,
        attempt: _Attempt,
        stored: StoredObject,
        prepared: ModelInput,
        encoded: Encoded,
        result: JobResult,
    ) -> tuple[JobResult, bool]:
        """Create the manifest. Returns the first attempt's result, and whether that is this one."""
        job, record = attempt.job, attempt.record
        result = self._copies.planned(job, record, result)
        manifest = manifest_of(
            result,
            record=record,
            source=_source_read(record, stored),
            info=self._segmenter.info,
            views=prepared.views,
            classes=encoded.classes,
            artifacts=encoded.artifacts,
        )
        committed = self._manifests.commit(job, record, result, manifest, attempt.held)
        return committed, committed is result

    def _result(
        self,
        attempt: _Attempt,
        stored: StoredObject,
        sha256: str,
        decoded: Decoded,
        encoded: Encoded,
        places: dict[StoredOutput, str],
        times: Stopwatch,
        notes: list[str],
    ) -> JobResult:
        record, info = attempt.record, encoded.info or self._segmenter.info
        return JobResult(
            width=decoded.image.width,
            height=decoded.image.height,
            model=record.model,
            model_revision=info.revision,
            backend=info.backend,
            dtype=info.dtype,
            precision=info.precision,
            uncertain_share=encoded.uncertain_share,
            outputs=places,
            labels={entry.id: entry.label for entry in encoded.classes},
            stats=encoded.classes if Output.STATS in record.request.outputs else [],
            source_etag=stored.etag,
            source_version_id=stored.version_id,
            source_sha256=sha256,
            output_sha256=encoded.sha256,
            notes=notes,
            timings_ms=dict(times.milliseconds),
        )


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One attempt at a job: where its files go, what was asked, secret URLs, the lease."""

    job: JobStorage
    record: JobRecord
    urls: PrivateUrls
    held: HeldJob


def _source_read(record: JobRecord, stored: StoredObject) -> str:
    """The job's source, with the version of the object that was read."""
    uri = record.request.image_uri
    return version_read(record.source or source_of(uri), uri, stored.version_id)


def coco_source(
    job_id: str, request: SegmentRequest, source: str | None, etag: str | None
) -> outputs.Source:
    """What rle.json says of the image. source: the job's; etag: of the object that was read.

    The file name is the one that the caller gave, or the last part of the URI; the job's id if that
    says nothing.
    """
    uri = request.redacted().image_uri
    path = unquote(urlsplit(uri).path) if is_url(uri) else uri
    if path.endswith(f"/{job_id}/{INPUT}"):  # an upload: every one has the same name
        given = source or ""
        path = "" if given.startswith("s3://") else given
    name = path.rpartition("/")[2]
    return outputs.Source(job_id if name in ("", ".", "..") else name, uri, etag, job_id)


@dataclass(frozen=True, slots=True)
class Encoded:
    """The files of a result, and the classes present in its mask."""

    artifacts: list[Artifact]
    classes: list[ClassStats]  # with boxes and regions only if an output needs them
    sha256: dict[StoredOutput, str]  # of each output, in hex
    info: ModelInfo | None  # of the network that computed the mask
    uncertain_share: float | None  # as of `ModelOutput`


def encode(
    request: SegmentRequest,
    decoded: Decoded,
    output: ModelOutput,
    ids: frozenset[int] | None,
    *,
    labels: Sequence[str],
    source: outputs.Source,
) -> Encoded:
    """The files that a request asks for. ids: its classes; None: all. labels: by class id."""
    output = replace(output, mask=outputs.only(output.mask, ids, len(labels)))
    classes = outputs.measured(request.outputs, output.mask, labels)
    alpha = outputs.OVERLAY_ALPHA if request.overlay_alpha is None else request.overlay_alpha
    artifacts = outputs.encode(
        request.outputs,
        image=decoded.image,
        output=output,
        labels=labels,
        classes=classes,
        style=outputs.OverlayStyle(alpha, request.overlay_legend),
        source=source,
    )
    return Encoded(
        artifacts,
        classes,
        outputs.sha256_of(request.outputs, artifacts),
        output.info,
        _rounded(output.uncertain_share),
    )


def _rounded(share: float | None) -> float | None:
    """Six digits are enough, and records stay small."""
    return None if share is None else round(share, 6)
