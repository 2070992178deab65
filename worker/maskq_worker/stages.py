"""What turns a job into its result: fetch, decode, prepare, segment, encode, store, commit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import ValidationError

from maskq.contract import FailureCode, JobRecord, JobResult, Output, SegmentRequest
from maskq.contract.jobs import ClassStats, Manifest
from maskq.contract.places import PrivateUrls, S3Place, is_url, shown
from maskq_worker import images, outputs
from maskq_worker.errors import JobError, PermanentError, StoreAway, TransientError
from maskq_worker.leases import Held
from maskq_worker.object_store import AlreadyThere, NotConditional, ObjectStore, StoredObject
from maskq_worker.outputs import Artifact
from maskq_worker.presigned import Presigned
from maskq_worker.room import Room

if TYPE_CHECKING:
    from maskq_worker.batcher import MicroBatcher
    from maskq_worker.images import Decoded
    from maskq_worker.model import ModelInput, ModelOutput, Scored, Segmenter
    from maskq_worker.model.views import Views
    from maskq_worker.settings import WorkerSettings

MANIFEST = "result.json"
_PIXEL_BYTES = 8  # of an image while it is decoded, and later beside its mask and overlay


class Stages:
    """Shared by every job thread of a process."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        store: ObjectStore,
        segmenter: Segmenter,
        batcher: MicroBatcher[ModelInput, Scored],
    ) -> None:
        self._settings = settings
        self._store = store
        self._presigned = Presigned(settings.presigned_allowed_hosts, store.breaker)
        self._segmenter = segmenter
        self._batcher = batcher
        self._room = Room(settings.max_decoded_bytes)

    def run(self, record: JobRecord, urls: PrivateUrls, held: Held) -> JobResult:
        """All stages, or the result of an earlier attempt that got as far as its manifest.

        Raises JobError, Lost, and what the batcher raises.
        """
        place = self._job_place(record)
        self._store.check_open(place.bucket)  # before anything is computed that could not be stored
        if record.attempt > 1 and (earlier := self._committed(place)):
            return earlier
        classes = outputs.chosen(record.request.classes, self._segmenter.info.labels)
        with ExitStack() as room:
            return self._segment(record, urls, held, classes, room)

    def _segment(
        self,
        record: JobRecord,
        urls: PrivateUrls,
        held: Held,
        classes: frozenset[int] | None,
        room: ExitStack,
    ) -> JobResult:
        """room: where memory for the image is kept until the end."""
        place, times = self._job_place(record), Stopwatch()
        stored = self._fetch(record, urls)
        times.lap("fetch")
        decoded = images.decode(
            stored.body,
            max_pixels=self._settings.max_image_pixels,
            on_pixels=lambda n: room.enter_context(self._room.taken(n * _PIXEL_BYTES)),
        )
        times.lap("decode")
        prepared = self._segmenter.prepare(
            decoded.image, outputs=record.request.outputs, mode=record.request.mode
        )
        times.lap("prepare")
        held.check()
        output = self._batcher.submit(prepared).result().output()
        times.lap("model")
        held.check()
        encoded = self._encode(record.request, decoded, output, classes)
        times.lap("encode")
        places = self._write(record, urls, held, encoded.artifacts)
        times.lap("store")
        held.check()
        notes = [*decoded.notes, *prepared.notes]
        result = self._result(record, stored, decoded, encoded.classes, places, times, notes)
        manifest = self._manifest(record.request, result, encoded, prepared.views)
        kept = self._commit(place, result, manifest, held)
        times.lap("commit")
        if kept is not result:
            return kept
        # In the record alone: the manifest cannot say how long its own writing took.
        return result.model_copy(update={"timings_ms": times.milliseconds})

    def remove(self, places: Sequence[S3Place]) -> bool:
        """Nobody will ask for these. False: some are left, the store does not remove them now."""
        gone = True
        for place in places:
            try:
                self._store.delete(place)
            except StoreAway:
                return False
            except JobError:
                gone = False
        return gone

    def remove_result(self, record: JobRecord, result: JobResult) -> bool:
        """A manifest and what it names. What was put to a caller's URL is not ours to remove.

        False: some of it is left.
        """
        ours = [uri for uri in result.outputs.values() if not is_url(uri)]
        files = [S3Place.parse(uri) for uri in ours if not uri.endswith("/")]
        gone = self.remove([self._job_place(record) / MANIFEST, *files])
        for prefix in (uri.rstrip("/") for uri in ours if uri.endswith("/")):
            try:
                self._store.delete_under(S3Place.parse(prefix))
            except JobError:
                gone = False
        return gone

    def _fetch(self, record: JobRecord, urls: PrivateUrls) -> StoredObject:
        request, max_bytes = record.request, self._settings.max_image_bytes
        source = urls.image_uri or request.image_uri
        if is_url(source):
            return StoredObject(*self._presigned.get(source, max_bytes=max_bytes))
        return self._store.get(
            S3Place.parse(source),
            max_bytes=max_bytes,
            version_id=request.image_version_id,
            etag=request.image_etag,
        )

    def _encode(
        self,
        request: SegmentRequest,
        decoded: Decoded,
        output: ModelOutput,
        ids: frozenset[int] | None,
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
            look=outputs.Look(alpha, request.overlay_legend),
        )
        return Encoded(artifacts, classes)

    def _write(
        self, record: JobRecord, urls: PrivateUrls, held: Held, artifacts: Sequence[Artifact]
    ) -> dict[Output, str]:
        """Where each output is now, as it may be shown."""
        places = {}
        for artifact in artifacts:
            plain = record.request.output_urls.get(artifact.output, "")
            if url := urls.output_urls.get(artifact.output, plain):
                self._presigned.put(url, artifact.body, artifact.content_type)
                places[artifact.output] = shown(url)
                continue
            at = self._job_place(record) / held.token / artifact.filename
            held.written.append(at)
            self._store.put(at, artifact.body, artifact.content_type)
            places[artifact.output] = str(at)
        if Output.BINARY in record.request.outputs:  # also where no class has a file
            places[Output.BINARY] = str(self._job_place(record) / held.token / outputs.BINARY)
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
        self, request: SegmentRequest, result: JobResult, encoded: Encoded, views: Views
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
                "mode": request.mode,
                "views": Counter("{1}x{0}".format(*view.pixels.shape) for view in views.each),
            },
            output_bytes=dict(sizes),
        )

    def _commit(
        self, place: S3Place, result: JobResult, manifest: Manifest, held: Held
    ) -> JobResult:
        """The manifest decides which attempt's outputs are the job's: it is created once.

        Whatever is raised, `held` says then what this attempt wrote and no manifest names.
        """
        body = manifest.model_dump_json(exclude_defaults=True).encode()
        held.in_doubt = True  # from here on: an error may hide that it was written
        committed = result
        try:
            self._store.create(place / MANIFEST, body, "application/json")
        except AlreadyThere:
            earlier = self._committed(place)
            if earlier is None:  # somebody deletes the job, or another attempt's result
                raise TransientError(
                    FailureCode.SOURCE_CHANGED, f"{place / MANIFEST} was there, and is gone"
                ) from None
            committed = earlier
        except NotConditional:  # somebody else's manifest is lost, if there was one
            held.in_doubt = not self.remove([place / MANIFEST])
            raise
        except JobError as error:
            earlier = self._committed(place)
            if earlier is None:
                # A refusal is final. What was only not answered may still be carried out.
                held.in_doubt = not isinstance(error, PermanentError)
                raise
            committed = earlier
        held.in_doubt = False
        if committed.outputs == result.outputs:
            held.written = []
            return result
        return committed

    def _committed(self, place: S3Place) -> JobResult | None:
        body = self._store.find(place / MANIFEST)
        if body is None:
            return None
        try:
            return JobResult.model_validate_json(body)
        except ValidationError as error:
            raise PermanentError(
                FailureCode.INVALID_REQUEST,
                f"{place / MANIFEST} is in the way and no manifest of ours; choose another "
                f"output_prefix",
            ) from error

    def _job_place(self, record: JobRecord) -> S3Place:
        if record.request.output_prefix:
            return S3Place.parse(record.request.output_prefix, key_required=False) / record.id
        return S3Place(self._settings.s3_bucket, self._settings.output_prefix) / record.id


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
