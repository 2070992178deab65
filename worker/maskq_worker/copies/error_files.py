"""Error files: what a job with output_error_file leaves when it fails or expires."""

from __future__ import annotations

import logging
from typing import Protocol

from maskq.contract import JobFailure, JobRecord, JobStatus
from maskq.contract.jobs import ErrorFile
from maskq.contract.storage_layout import ERROR_FILE, MANIFEST_TYPE, StorageLayout
from maskq.errors import StoreUnavailable
from maskq.ledger import calls
from maskq.ledger.calls import Call, T
from maskq_worker.copies.named_copies import NamedCopies
from maskq_worker.errors import PermanentError, TransientError
from maskq_worker.storage.object_store import ObjectStore

logger = logging.getLogger(__name__)


class RunsCalls(Protocol):
    """A ledger, which may repeat calls during an outage of Redis."""

    def run(self, call: Call[T]) -> T:
        """Run a call."""


class ErrorFiles:
    """Writes error files. Shared by the job threads."""

    def __init__(self, ledger: RunsCalls, store: ObjectStore, layout: StorageLayout) -> None:
        self._ledger = ledger
        self._store = store
        self._layout = layout
        self._copies = NamedCopies(store)

    def write_now(self, record: JobRecord, status: JobStatus, failure: JobFailure) -> None:
        """Write the files of a job that has just ended, if it has that option.

        If a store is unavailable, the retention writes them later.
        """
        if not record.request.output_error_file:
            return
        try:
            self.write(record, status, failure)
            self._ledger.run(calls.error_file_written(record.id))
        except (TransientError, StoreUnavailable) as error:
            logger.warning("the error file of job %s is written later: %s", record.id, error)

    def write(self, record: JobRecord, status: JobStatus, failure: JobFailure) -> None:
        """Write the error file and its named copy. A refusal is logged. Raises TransientError."""
        job = self._layout.of(record)
        named = job.named_files(record.request, record.source)
        if named is None:
            return
        try:
            place = named.error_file()
            document = ErrorFile(
                job_id=record.id,
                image_uri=record.request.redacted().image_uri,
                status=status,
                error=failure,
                copies={ERROR_FILE: str(place)},
            )
            body = document.model_dump_json(indent=2).encode()
            self._store.put(job.error_file, body, MANIFEST_TYPE, job=job)
            self._copies.publish_error_file(job, record, body)
        except ValueError as error:
            logger.warning("job %s has no error file: output_name: %s", record.id, error)
        except PermanentError as error:
            logger.warning("the error file of job %s is refused: %s", record.id, error.message)
