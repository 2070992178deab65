"""Deletes objects that attempts wrote and that no manifest names."""

from __future__ import annotations

import logging

from maskq.contract import JobRecord, JobResult
from maskq.contract.locations import S3Uri
from maskq.contract.storage_layout import JobStorage, StorageLayout
from maskq.ledger import calls
from maskq_worker.copies.named_copies import NamedCopies
from maskq_worker.errors import JobError
from maskq_worker.jobs.leases import HeldJob
from maskq_worker.jobs.retrying_ledger import RetryingLedger
from maskq_worker.storage.object_store import ObjectStore

logger = logging.getLogger(__name__)


class Cleanup:
    """Cleans up after attempts that end without a result. Shared by the job threads."""

    def __init__(self, ledger: RetryingLedger, store: ObjectStore, layout: StorageLayout) -> None:
        self._ledger = ledger
        self._store = store
        self._layout = layout
        self._copies = NamedCopies(store)

    def discard(self, record: JobRecord, held: HeldJob, result: JobResult | None = None) -> None:
        """Delete what an attempt wrote whose job is no longer this worker's.

        result: what the attempt committed, if it came so far. It stays if it is the job's result now,
        or if the job has not ended: the next attempt adopts the manifest.
        """
        current = self._ledger.run(calls.get(record.id))
        is_kept = current is not None and (not current.ended or current.result is not None)
        is_left = result is not None and not is_kept and not self.remove_result(record, result)
        self.remove_written(record, held, is_left=is_left)
        logger.info("job %s: attempt %d is discarded", record.id, record.attempt)

    def remove_written(
        self, record: JobRecord, held: HeldJob, *, later: bool = False, is_left: bool = False
    ) -> None:
        """Delete what the attempt wrote and no manifest names, or have the sweeper do it later.

        later: the store is unavailable. is_left: objects of the attempt are left already.
        """
        later = later and bool(held.written)
        if later or is_left or held.may_be_committed or not self._deleted(record, held.written):
            call = calls.leave_orphans(
                record.id,
                tenant=record.request.tenant,
                output_prefix=record.request.output_prefix,
            )
            self._ledger.run(call)
        held.forget_written()

    def remove_result(self, record: JobRecord, result: JobResult) -> bool:
        """Delete a manifest and the objects that it names, if this job may have written them.

        Copies go first: only the manifest says where all of them are. Outputs at URLs of the caller
        stay. Returns False if objects are left.
        """
        job = self._layout.of(record)
        if not self._copies.remove_all(map(S3Uri.parse, result.copies.values()), job):
            return False
        ours = [uri for output, uri in result.outputs.items() if job.is_output(output, uri)]
        places = [job.manifest, *(S3Uri.parse(uri) for uri in ours if not uri.endswith("/"))]
        listed, is_listed = self._below(job, tuple(uri for uri in ours if uri.endswith("/")))
        return self._store.delete_all([*places, *listed], job=job) and is_listed

    def _below(self, job: JobStorage, folders: tuple[str, ...]) -> tuple[list[S3Uri], bool]:
        """The objects in these folders, and whether they could be listed."""
        if not folders:
            return [], True
        try:
            listed = self._store.list_of(job.outputs, job)
        except JobError:
            return [], False
        return [found for found in listed if str(found).startswith(folders)], True

    def _deleted(self, record: JobRecord, places: tuple[S3Uri, ...]) -> bool:
        return self._store.delete_all(places, job=self._layout.of(record))
