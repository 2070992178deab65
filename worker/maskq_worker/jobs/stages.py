"""What turns a job into its result: fetch, decode, prepare, segment, encode, store, commit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from maskq.contract import FailureCode, JobRecord, JobResult, Output, SegmentRequest
from maskq.contract.jobs import ClassStats, Manifest
from maskq.contract.locations import PrivateUrls, S3Uri, is_url, redact
from maskq.contract.storage_layout import MAX_MANIFEST_BYTES, JobStorage
from maskq_worker import outputs
from maskq_worker.decoding import KEPT_PIXEL_BYTES
from maskq_worker.errors import JobError, PermanentError, StoreAway, TransientError
from maskq_worker.jobs.leases import HeldJob
from maskq_worker.jobs.memory_budget import MemoryBudget, Reservation
from maskq_worker.outputs import Artifact
from maskq_worker.storage.object_store import (
    AlreadyThere,
    NotConditional,
    ObjectStore,
    StoredObject,
    TooLarge,
)
from maskq_worker.storage.presigned import Presigned

if TYPE_CHECKING:
    from maskq_worker.batching.batcher import MicroBatcher
    from maskq_worker.decoding import Decoder
    from maskq_worker.imaging import Decoded
    from maskq_worker.model import ModelInput, ModelOutput, PendingOutput, Segmenter
    from maskq_worker.model.views import Views
    from maskq_worker.settings import WorkerSettings


class Stages:
    """Shared by every job thread of a process."""

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
        self._room = MemoryBudget(settings.max_decoded_bytes)

    def run(self, record: JobRecord, urls: PrivateUrls, held: HeldJob) -> JobResult:
        """All stages, or the result of an earlier attempt that got as far as its manifest.

        Raises JobError, Lost, and what the batcher raises.
        """
        job = self._layout.of(record)
        # Before anything is computed that could not be stored.
        self._store.check_writable(job)
        self._store.check_open(job.outputs.bucket)
        if record.attempt > 1 and (earlier := self._committed(job, record)):
            return earlier
        classes = outputs.chosen(record.request.classes, self._segmenter.info.labels)
        with self._room.taken() as memory:
            return self._segment(job, record, urls, held, classes, memory)

    def _segment(
        self,
        job: JobStorage,
        record: JobRecord,
        urls: PrivateUrls,
        held: HeldJob,
        classes: frozenset[int] | None,
        memory: Reservation,
    ) -> JobResult:
        """memory: of the image, kept until the end."""
        times = Stopwatch()
        stored = self._fetch(job, record.request, urls)
        times.lap("fetch")
        decoded = self._decoder.decode(stored.body, memory.take)
        memory.shrink(decoded.image.width * decoded.image.height * KEPT_PIXEL_BYTES)
        times.lap("decode")
        prepared = self._segmenter.prepare(
            decoded.image, outputs=record.request.outputs, mode=record.request.mode
        )
        times.lap("prepare")
        held.check()
        output = self._batcher.submit(prepared).result().wait()
        times.lap("model")
        held.check()
        source = _source(record, stored)
        encoded = self._encode(record.request, decoded, output, classes, source)
        times.lap("encode")
        places = self._write(job, record.request, urls, held, encoded.artifacts)
        times.lap("store")
        held.check()
        notes = [*decoded.notes, *prepared.notes]
        result = self._result(record, stored, decoded, encoded.classes, places, times, notes)
        manifest = self._manifest(record, result, encoded, prepared.views)
        kept = self._commit(job, record, result, manifest, held)
        times.lap("commit")
        if kept is not result:
            return kept
        # In the record alone: the manifest cannot say how long its own writing took.
        return result.model_copy(update={"timings_ms": times.milliseconds})

    def remove(self, record: JobRecord, places: Sequence[S3Uri]) -> bool:
        """Delete objects of a job that nobody will ask for. False: some are left, for now."""
        return self._remove(self._layout.of(record), places)

    def _remove(self, job: JobStorage, places: Sequence[S3Uri]) -> bool:
        gone = True
        for place in places:
            try:
                self._store.delete(place, job=job)
            except StoreAway:
                return False
            except JobError:
                gone = False
        return gone

    def remove_result(self, record: JobRecord, result: JobResult) -> bool:
        """Delete a manifest and what it names, as far as this job writes such names.

        What was put to a caller's URL stays. False: some of it is left.
        """
        job = self._layout.of(record)
        ours = [uri for output, uri in result.outputs.items() if job.is_output(output, uri)]
        places = [job.manifest, *(S3Uri.parse(uri) for uri in ours if not uri.endswith("/"))]
        if folders := tuple(uri for uri in ours if uri.endswith("/")):
            try:
                listed = self._store.list_of(job.outputs, job)
            except JobError:
                return self._remove(job, places) and False
            places += [found for found in listed if str(found).startswith(folders)]
        return self._remove(job, places)

    def _fetch(self, job: JobStorage, request: SegmentRequest, urls: PrivateUrls) -> StoredObject:
        max_bytes = self._settings.max_image_bytes
        source = urls.image_uri or request.image_uri
        if is_url(source):
            return StoredObject(*self._presigned.get(source, max_bytes=max_bytes))
        return self._store.get(
            S3Uri.parse(source),
            max_bytes=max_bytes,
            version_id=request.image_version_id,
            etag=request.image_etag,
            job=job,
        )

    def _encode(
        self,
        request: SegmentRequest,
        decoded: Decoded,
        output: ModelOutput,
        ids: frozenset[int] | None,
        source: outputs.Source,
    ) -> Encoded:
        labels = self._segmenter.info.labels
        output = replace(output, mask=outputs.only(output.mask, ids, len(labels)))
        classes = outputs.measured(request.outputs, output.mask, labels)
        alpha = outputs.OVERLAY_ALPHA if request.overlay_alpha is None else request.overlay_alpha
        artifacts = outputs.encode(
            request.outputs,
            image=decoded.image,
            output=output,
            labels=labels,
            classes=classes,
            look=outputs.OverlayStyle(alpha, request.overlay_legend),
            source=source,
        )
        return Encoded(artifacts, classes)

    def _write(
        self,
        job: JobStorage,
        request: SegmentRequest,
        urls: PrivateUrls,
        held: HeldJob,
        artifacts: Sequence[Artifact],
    ) -> dict[Output, str]:
        """Where each output is now, as it may be shown."""
        places = {}
        for artifact in artifacts:
            plain = request.output_urls.get(artifact.output, "")
            if url := urls.output_urls.get(artifact.output, plain):
                self._presigned.put(url, artifact.body, artifact.content_type)
                places[artifact.output] = redact(url)
                continue
            at = job.file(held.token, artifact.filename)
            held.written.append(at)
            self._store.put(at, artifact.body, artifact.content_type, job=job)
            places[artifact.output] = str(at)
        if Output.BINARY in request.outputs:  # also where no class has a file
            places[Output.BINARY] = str(job.output(held.token, Output.BINARY))
        return places

    def _result(
        self,
        record: JobRecord,
        stored: StoredObject,
        decoded: Decoded,
        classes: list[ClassStats],
        places: dict[Output, str],
        times: Stopwatch,
        notes: list[str],
    ) -> JobResult:
        return JobResult(
            width=decoded.image.width,
            height=decoded.image.height,
            model=record.model,
            model_revision=self._segmenter.info.revision,
            backend=self._segmenter.info.backend,
            dtype=self._segmenter.info.dtype,
            outputs=places,
            labels={entry.id: entry.label for entry in classes},
            stats=classes if Output.STATS in record.request.outputs else [],
            source_etag=stored.etag,
            source_version_id=stored.version_id,
            notes=notes,
            timings_ms=dict(times.milliseconds),
        )

    def _manifest(
        self, record: JobRecord, result: JobResult, encoded: Encoded, views: Views
    ) -> Manifest:
        """views: what the network looked at."""
        info = self._segmenter.info
        sizes: Counter[Output] = Counter()
        for artifact in encoded.artifacts:
            sizes[artifact.output] += len(artifact.body)
        return Manifest(
            **dict(result),
            palette=outputs.colours(encoded.classes, len(info.labels)),
            preprocessing={
                **info.preprocessing,
                "mode": record.request.mode,
                "views": Counter("{1}x{0}".format(*view.pixels.shape) for view in views.each),
            },
            output_bytes=dict(sizes),
            submitted_ms=record.created_ms,
        )

    def _commit(
        self,
        job: JobStorage,
        record: JobRecord,
        result: JobResult,
        manifest: Manifest,
        held: HeldJob,
    ) -> JobResult:
        """The manifest decides which attempt's outputs are the job's: it is created once.

        Whatever is raised, `held` says then what this attempt wrote and no manifest names.
        """
        body = manifest.model_dump_json(exclude_defaults=True).encode()
        if len(body) > MAX_MANIFEST_BYTES:
            raise PermanentError(
                FailureCode.INVALID_REQUEST,
                f"its manifest would have {len(body)} bytes, and at most {MAX_MANIFEST_BYTES} are "
                f"read; ask for fewer classes (classes=)",
            )
        held.may_be_committed = True  # from here on: an error may hide that it was written
        committed = result
        try:
            self._store.create(job.manifest, body, "application/json", job=job)
        except AlreadyThere:
            earlier = self._earlier(job, record, held)
            if earlier is None:  # somebody deletes the job, or another attempt's result
                raise TransientError(
                    FailureCode.SOURCE_CHANGED, f"{job.manifest} was there, and is gone"
                ) from None
            committed = earlier
        except NotConditional:  # somebody else's manifest is lost, if there was one
            held.may_be_committed = not self._remove(job, [job.manifest])
            raise
        except JobError as error:
            earlier = self._earlier(job, record, held)
            if earlier is None:
                # A refusal is final. What was only not answered may still be carried out.
                held.may_be_committed = not isinstance(error, PermanentError)
                raise
            committed = earlier
        held.may_be_committed = False
        if committed.outputs == result.outputs:
            held.written = []
            return result
        return committed

    def _earlier(self, job: JobStorage, record: JobRecord, held: HeldJob) -> JobResult | None:
        """What was committed before. A foreign object in the way proves that this attempt's was not."""
        try:
            return self._committed(job, record)
        except ForeignManifest:
            held.may_be_committed = False
            raise

    def _committed(self, job: JobStorage, record: JobRecord) -> JobResult | None:
        """The result that an attempt committed; None: none did. Raises ForeignManifest.

        Whoever may write to the output prefix can put an object there. It is believed only if this job
        could have written it: a result names objects that are read, and deleted, in its caller's name.
        """
        try:
            body = self._store.find(job.manifest, max_bytes=MAX_MANIFEST_BYTES, job=job)
            if body is None:
                return None
            manifest, result = (
                Manifest.model_validate_json(body),
                JobResult.model_validate_json(body),
            )
        except TooLarge as error:
            raise ForeignManifest(job, f"it is larger than {MAX_MANIFEST_BYTES} bytes") from error
        except ValidationError as error:
            raise ForeignManifest(job, "it is not a manifest") from error
        if refusal := job.refusal(result, record.request):
            raise ForeignManifest(job, refusal)
        if manifest.submitted_ms not in (None, record.created_ms):
            raise ForeignManifest(job, "it is of an earlier job with the same id")
        return result


class ForeignManifest(PermanentError):
    """Where the job's manifest belongs lies an object that this job did not write."""

    def __init__(self, job: JobStorage, reason: str) -> None:
        super().__init__(
            FailureCode.INVALID_REQUEST,
            f"{job.manifest} is in the way, and this job did not write it: {reason}; submit it again, "
            f"with an output_prefix that nobody else writes to",
        )


def _source(record: JobRecord, stored: StoredObject) -> outputs.Source:
    """The image's file name is the last part of its place; the job's id where that says nothing."""
    uri = record.request.redacted().image_uri
    path = unquote(urlsplit(uri).path) if is_url(uri) else uri
    folder, _, name = path.rpartition("/")
    uploaded = folder.endswith(f"/{record.id}")  # by a client, which calls every image the same
    if uploaded or name in ("", ".", ".."):
        name = record.id
    return outputs.Source(name, uri, stored.etag, record.id)


@dataclass(frozen=True, slots=True)
class Encoded:
    """What is to be stored, and the classes that are in it."""

    artifacts: list[Artifact]
    classes: list[ClassStats]  # with boxes and regions only where an output needs them


class Stopwatch:
    """How long each stage of a job took; together that is all of it."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def lap(self, stage: str) -> None:
        """It ends, and the next one begins."""
        now = time.perf_counter()
        self.milliseconds[stage] = round((now - self._began) * 1000, 2)
        self._began = now
