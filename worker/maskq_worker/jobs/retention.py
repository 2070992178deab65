"""Objects that nobody needs go: those of ended jobs when their time is over
(MASKQ_OUTPUT_RETENTION_S), and what attempts left that were cut off in the middle."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from maskq.contract import FailureCode, JobRecord, JobResult
from maskq.contract.locations import S3Uri
from maskq.contract.storage_layout import (
    INPUT,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    JobStorage,
    StorageLayout,
)
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import Call, Objects
from maskq_worker.errors import JobError
from maskq_worker.jobs.leases import Repeating
from maskq_worker.storage.object_store import ObjectStore, TooLarge

logger = logging.getLogger(__name__)


class Retention:
    """Asks the ledger whose objects are due, and removes them. Any number may run side by side."""

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
        self._thread = Repeating("maskq-retention", every_s, self.remove_due)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def remove_due(self) -> None:
        """What is due now."""
        for due in self._all(calls.due_outputs):
            job = self._storage(due)
            with self._noting(calls.outputs_removed(due)):
                for place in job.folders:
                    for found in self._store.list_of(place, job):
                        self._store.delete(found, job=job)
        for due in self._all(calls.due_orphans):
            record = self._ledger.run(calls.get(due.job_id))
            if record and not record.ended:
                continue  # due again in some minutes
            with self._noting(calls.orphans_removed(due)):
                self._remove_orphans(self._storage(due), record)

    def _all(self, due: Callable[[], Call[list[Objects]]]) -> Iterator[Objects]:
        """Some at a time: what the ledger has told of it tells again only minutes later. A worker that
        stops does not wait for the rest."""
        while some := self._ledger.run(due()):
            for one in some:
                if self._thread.stopping:
                    return
                yield one

    @contextmanager
    def _noting(self, done: Call[None]) -> Iterator[None]:
        """Tell the ledger once the objects are gone; a store that is away only delays it."""
        try:
            yield
        except Unreadable as error:
            logger.warning("%s", error)
        except JobError as error:
            if error.code is not FailureCode.NOT_FOUND:  # then the bucket went, with all in it
                logger.warning("%s; its objects go later", error.message)
                return
        self._ledger.run(done)

    def _storage(self, due: Objects) -> JobStorage:
        return self._layout.job(due.job_id, tenant=due.tenant, output_prefix=due.output_prefix)

    def _remove_orphans(self, job: JobStorage, record: JobRecord | None) -> None:
        """What attempts of an ended job wrote and its result does not name.

        record: None once its own retention is over; then its manifest says what the result is.
        """
        result = record.result if record else self._committed(job)
        named = result.outputs if result else {}
        kept = [S3Uri.parse(uri) for output, uri in named.items() if job.is_output(output, uri)]
        # Of the job as a whole: the upload and, with a result, the commit.
        names = {INPUT} if record and not result else {INPUT, MANIFEST}
        for place in job.folders:
            outside = {place / name for name in names}
            for found in self._store.list_of(place, job):
                if found not in outside and not any(_is_of(found, one) for one in kept):
                    logger.info("removing %s, which an attempt left that was cut off", found)
                    self._store.delete(found, job=job)

    def _committed(self, job: JobStorage) -> JobResult | None:
        """What the manifest says. Raises Unreadable: then nobody knows which outputs are a result."""
        try:
            body = self._store.find(job.manifest, max_bytes=MAX_MANIFEST_BYTES, job=job)
            return JobResult.model_validate_json(body) if body else None
        except (TooLarge, ValidationError) as error:
            raise Unreadable(f"{job.manifest} is not a manifest; nothing below it goes") from error


class Unreadable(Exception):
    """The manifest of a job without a record is not one."""


def _is_of(found: S3Uri, place: S3Uri) -> bool:
    """Whether it is that object or, where the place is a directory, below it."""
    return found == place or (place.key.endswith("/") and str(found).startswith(str(place)))
