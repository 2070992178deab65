"""Deletes objects that nobody needs any more.

These are the objects of ended jobs after MASKQ_OUTPUT_RETENTION_S, what interrupted attempts left,
and uploads that were never submitted. It also writes error files that are missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from maskq.contract import FailureCode, JobRecord, JobResult
from maskq.contract.locations import S3Uri
from maskq.contract.locations.output_names import copies_named_in
from maskq.contract.storage_layout import (
    ERROR_FILE,
    INPUT,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    JobStorage,
    StorageLayout,
)
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import Call, Objects
from maskq_worker.copies.error_files import ErrorFiles
from maskq_worker.copies.named_copies import NamedCopies
from maskq_worker.errors import JobError
from maskq_worker.jobs.leases import Repeating
from maskq_worker.storage.object_store import ObjectStore, TooLarge

logger = logging.getLogger(__name__)


class Retention:
    """Deletes the objects that the ledger lists as due. Any number may run side by side."""

    def __init__(
        self,
        ledger: Ledger,
        store: ObjectStore,
        layout: StorageLayout,
        every_s: float = 30.0,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._layout = layout
        self._copies = NamedCopies(store)
        self._error_files = ErrorFiles(ledger, store, layout)
        self._thread = Repeating("maskq-retention", every_s, self.remove_due)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def remove_due(self) -> None:
        """Delete what is due now. Before that, write the error files that are due."""
        for due in self._all(calls.due_error_files):
            with self._reporting(calls.error_file_written(due.job_id)):
                self._write_error_file(due.job_id)
        for due in self._all(calls.due_outputs):
            job = self._storage(due)
            with self._reporting(calls.outputs_removed(due)):
                self._remove_copies(job)
                for place in job.folders:
                    for found in self._store.list_of(place, job):
                        self._store.delete(found, job=job)
        for due in self._all(calls.due_orphans):
            record = self._ledger.run(calls.get(due.job_id))
            if record and not record.ended:
                continue  # the ledger lists it again in some minutes
            with self._reporting(calls.orphans_removed(due)):
                self._remove_orphans(self._storage(due), record)
        for due in self._all(calls.due_uploads):
            with self._reporting(calls.upload_removed(due)):
                self._remove_upload(self._storage(due))

    def _all(self, due: Callable[[], Call[list[Objects]]]) -> Iterator[Objects]:
        """All that are due, read in parts. Stops early if the worker stops.

        The ledger lists an entry again only after some minutes.
        """
        while some := self._ledger.run(due()):
            for one in some:
                if self._thread.stopping:
                    return
                yield one

    @contextmanager
    def _reporting(self, done: Call[None]) -> Iterator[None]:
        """Tell the ledger when the objects are deleted. An outage of the store only delays this."""
        try:
            yield
        except UnreadableManifest as error:
            logger.warning("%s", error)
        except JobError as error:
            if error.code is not FailureCode.NOT_FOUND:  # the whole bucket is deleted
                logger.warning("%s; its objects are deleted later", error.message)
                return
        self._ledger.run(done)

    def _storage(self, due: Objects) -> JobStorage:
        return self._layout.job(due.job_id, tenant=due.tenant, output_prefix=due.output_prefix)

    def _remove_orphans(self, job: JobStorage, record: JobRecord | None) -> None:
        """Delete what attempts of an ended job wrote and its result does not name.

        record: None after its retention; then the manifest says what the result is.
        """
        result = record.result if record else self._committed(job)
        if record and result is None:
            self._remove_copies(job, record)
        named = result.outputs if result else {}
        kept = [S3Uri.parse(uri) for output, uri in named.items() if job.is_output(output, uri)]
        # These belong to the job, not to an attempt: the upload, the error file and, with a result, the
        # manifest.
        names = {INPUT, ERROR_FILE} if record and not result else {INPUT, ERROR_FILE, MANIFEST}
        for place in job.folders:
            of_job = {place / name for name in names}
            for found in self._store.list_of(place, job):
                if found not in of_job and not any(_is_of(found, one) for one in kept):
                    logger.info("deleting %s, which an interrupted attempt left", found)
                    self._store.delete(found, job=job)

    def _write_error_file(self, job_id: str) -> None:
        record = self._ledger.run(calls.get(job_id))
        if record and record.error:
            self._error_files.write(record, record.status, record.error)

    def _remove_copies(self, job: JobStorage, record: JobRecord | None = None) -> None:
        """Delete the named copies of a job. Raises JobError.

        Its manifest and its error file name them. record: of a job without a result, whose manifest may
        be deleted already.
        """
        if job.output_prefix is None:
            return  # without an output_prefix there are no copies
        places = self._named_in(job.manifest, job)
        if record is None:
            places += self._named_in(job.error_file, job)
        elif named := job.named_files(record.request, record.source):
            places += named.copies(()).values()
        for place in places:
            self._copies.remove(place, job)

    def _named_in(self, document: S3Uri, job: JobStorage) -> list[S3Uri]:
        try:
            body = self._store.find(document, max_bytes=MAX_MANIFEST_BYTES, job=job)
        except TooLarge:
            return []
        return copies_named_in(body) if body else []

    def _remove_upload(self, job: JobStorage) -> None:
        """Delete an image that a caller uploaded and did not submit."""
        if not self._ledger.run(calls.get(job.job_id)):
            logger.info("deleting %s, which was uploaded and not submitted", job.upload)
            self._store.delete(job.upload, job=job)

    def _committed(self, job: JobStorage) -> JobResult | None:
        """The result in the manifest. Raises UnreadableManifest: its outputs are then unknown."""
        try:
            body = self._store.find(job.manifest, max_bytes=MAX_MANIFEST_BYTES, job=job)
            return JobResult.model_validate_json(body) if body else None
        except (TooLarge, ValidationError) as error:
            raise UnreadableManifest(
                f"{job.manifest} is not a manifest; the job's objects are not deleted"
            ) from error


class UnreadableManifest(Exception):
    """A job has no record any more, and its manifest is not valid."""


def _is_of(found: S3Uri, place: S3Uri) -> bool:
    """Whether `found` is that object or, if the place is a folder, below it."""
    return found == place or (place.key.endswith("/") and str(found).startswith(str(place)))
