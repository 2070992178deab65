"""The manifest: it is created once, and the attempt that creates it provides the job's result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import ValidationError

from maskq.contract import FailureCode, JobRecord, JobResult
from maskq.contract.jobs import ClassStats, Manifest
from maskq.contract.locations.source import object_metadata
from maskq.contract.outputs import StoredOutput
from maskq.contract.storage_layout import MANIFEST_TYPE, MAX_MANIFEST_BYTES, JobStorage
from maskq_worker import outputs
from maskq_worker.errors import JobError, PermanentError, TransientError
from maskq_worker.jobs.leases import HeldJob
from maskq_worker.outputs import Artifact
from maskq_worker.storage.object_store import AlreadyThere, NotConditional, ObjectStore, TooLarge

if TYPE_CHECKING:
    from maskq_worker.model import ModelInfo
    from maskq_worker.model.views import Views


class ForeignManifest(PermanentError):
    """An object that this job did not write is stored in the manifest's place."""

    def __init__(self, job: JobStorage, reason: str) -> None:
        super().__init__(
            FailureCode.INVALID_REQUEST,
            f"{job.manifest} exists, but this job did not write it: {reason}; submit the job again "
            f"with an output_prefix that nobody else writes to",
        )


class Manifests:
    """Commits results and finds committed ones. Shared by the job threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, job: JobStorage, record: JobRecord) -> JobResult | None:
        """The result that an attempt committed; None if there is none. Raises ForeignManifest.

        Anyone who may write to the output prefix can store an object there. It is accepted only if
        this job could have written it: what a result names is read and deleted in its caller's name.
        """
        try:
            body = self._store.find(job.manifest, max_bytes=MAX_MANIFEST_BYTES, job=job)
            if body is None:
                return None
            manifest = Manifest.model_validate_json(body)
            result = JobResult.model_validate_json(body)
        except TooLarge as error:
            raise ForeignManifest(job, f"it is larger than {MAX_MANIFEST_BYTES} bytes") from error
        except ValidationError as error:
            raise ForeignManifest(job, "it is not a manifest") from error
        if refusal := job.refusal(result, record.request, record.source):
            raise ForeignManifest(job, refusal)
        if manifest.submitted_ms not in (None, record.created_ms):
            raise ForeignManifest(job, "it belongs to an earlier job with the same id")
        return result

    def commit(
        self,
        job: JobStorage,
        record: JobRecord,
        result: JobResult,
        manifest: Manifest,
        held: HeldJob,
    ) -> JobResult:
        """Create the manifest. Returns the job's result: `result`, or that of an earlier attempt.

        `held` then knows which objects of this attempt no manifest names, also if this raises.
        """
        body = _encoded(manifest)
        held.begin_commit()
        metadata = object_metadata(record.id, manifest.source)
        committed = self._create(job, record, body, metadata, held) or result
        held.end_commit()
        if committed.outputs == result.outputs:
            held.forget_written()
            return result
        return committed

    def _create(
        self,
        job: JobStorage,
        record: JobRecord,
        body: bytes,
        metadata: Mapping[str, str],
        held: HeldJob,
    ) -> JobResult | None:
        """Returns the result that was committed before, or None if the manifest is created now."""
        try:
            self._store.create(job.manifest, body, MANIFEST_TYPE, metadata=metadata, job=job)
        except AlreadyThere:
            earlier = self._earlier(job, record, held)
            if earlier is None:  # the job is being deleted, or another attempt's result
                raise TransientError(
                    FailureCode.SOURCE_CHANGED, f"{job.manifest} existed, and is deleted now"
                ) from None
            return earlier
        except NotConditional:  # another attempt's manifest is overwritten, if there was one
            if self._store.delete_all([job.manifest], job=job):
                held.end_commit()
            raise
        except JobError as error:
            earlier = self._earlier(job, record, held)
            if earlier is None:
                # A refusal is final. A request without an answer may still be carried out.
                if isinstance(error, PermanentError):
                    held.end_commit()
                raise
            return earlier
        return None

    def _earlier(self, job: JobStorage, record: JobRecord, held: HeldJob) -> JobResult | None:
        """The result committed before. A foreign manifest proves that ours was not written."""
        try:
            return self.find(job, record)
        except ForeignManifest:
            held.end_commit()
            raise


def manifest_of(
    result: JobResult,
    *,
    record: JobRecord,
    source: str,
    info: ModelInfo,
    views: Views,
    classes: list[ClassStats],
    artifacts: list[Artifact],
) -> Manifest:
    """The result with what a reader of the files needs to understand them.

    source: what was segmented, with its version. views: what the network processed.
    """
    sizes: Counter[StoredOutput] = Counter()
    for artifact in artifacts:
        sizes[artifact.output] += len(artifact.body)
    return Manifest(
        **dict(result),
        job_id=record.id,
        source=source,
        request=record.request.deciding_outputs(),
        palette=outputs.colours(classes, len(info.labels)),
        preprocessing={
            **info.preprocessing,
            "mode": record.request.mode,
            "views": Counter("{1}x{0}".format(*view.pixels.shape) for view in views.each),
        },
        output_bytes=sizes,
        submitted_ms=record.created_ms,
    )


def _encoded(manifest: Manifest) -> bytes:
    body = manifest.model_dump_json(exclude_defaults=True).encode()
    if len(body) > MAX_MANIFEST_BYTES:
        raise PermanentError(
            FailureCode.INVALID_REQUEST,
            f"the job's manifest would have {len(body)} bytes, and at most {MAX_MANIFEST_BYTES} are "
            f"allowed; request fewer classes (classes=)",
        )
    return body
