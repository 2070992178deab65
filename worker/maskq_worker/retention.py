"""Outputs and uploads of ended jobs go when their time is over (MASKQ_OUTPUT_RETENTION_S)."""

from __future__ import annotations

import logging

from maskq.contract.places import S3Place
from maskq.ledger import Ledger, calls
from maskq_worker.errors import JobError
from maskq_worker.leases import Repeating
from maskq_worker.object_store import ObjectStore

logger = logging.getLogger(__name__)


class Retention:
    """Asks the ledger whose objects are due, and removes them. Any number may run side by side."""

    def __init__(
        self, ledger: Ledger, store: ObjectStore, prefix: str, home: S3Place, every_s: float = 30.0
    ) -> None:
        """home: where uploads are, and outputs of jobs without an output_prefix."""
        self._ledger = ledger
        self._store = store
        self._prefix = prefix
        self._home = home
        self._thread = Repeating("maskq-retention", every_s, self.remove_due)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def remove_due(self) -> None:
        for job_id, output_prefix in self._ledger.run(calls.due_outputs(self._prefix)):
            places = [self._home / job_id]
            if output_prefix:
                places.append(S3Place.parse(output_prefix, key_required=False) / job_id)
            try:
                for place in places:
                    self._store.delete_under(place)
            except JobError as error:
                logger.warning("%s; its objects go later", error.message)
                continue
            self._ledger.run(calls.outputs_removed(self._prefix, job_id, output_prefix))
