"""Objects that nobody needs go: those of ended jobs when their time is over
(MASKQ_OUTPUT_RETENTION_S), and what attempts left that were cut off in the middle."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from maskq.contract import FailureCode, JobResult
from maskq.contract.places import S3Place, is_url
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import Call, Objects
from maskq_worker.errors import JobError
from maskq_worker.leases import Repeating
from maskq_worker.object_store import ObjectStore
from maskq_worker.stages import MANIFEST

logger = logging.getLogger(__name__)

_OUTSIDE_ATTEMPTS = frozenset({"input", MANIFEST})  # of the job as a whole: the upload, the commit


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
        """What is due now."""
        for due in self._all(calls.due_outputs):
            with self._noting(calls.outputs_removed(self._prefix, due)):
                for place in self._places(due):
                    self._store.delete_under(place)
        for due in self._all(calls.due_orphans):
            record = self._ledger.run(calls.get(self._prefix, due.job_id))
            if record and not record.ended:
                continue  # due again in some minutes
            with self._noting(calls.orphans_removed(self._prefix, due)):
                has_result = record is None or record.result is not None
                for place in self._places(due):
                    self._remove_orphans(place, has_result)

    def _all(self, due: Callable[[str], Call[list[Objects]]]) -> Iterator[Objects]:
        """Some at a time: what the ledger has told of it tells again only minutes later. A worker that
        stops does not wait for the rest."""
        while some := self._ledger.run(due(self._prefix)):
            for one in some:
                if self._thread.stopping:
                    return
                yield one

    @contextmanager
    def _noting(self, done: Call[None]) -> Iterator[None]:
        """Tell the ledger once the objects are gone; a store that is away only delays it."""
        try:
            yield
        except JobError as error:
            if error.code is not FailureCode.NOT_FOUND:  # then the bucket went, with all in it
                logger.warning("%s; its objects go later", error.message)
                return
        self._ledger.run(done)

    def _places(self, due: Objects) -> list[S3Place]:
        places = [self._home / due.job_id]
        if due.output_prefix:
            places.append(S3Place.parse(due.output_prefix, key_required=False) / due.job_id)
        return places

    def _remove_orphans(self, place: S3Place, has_result: bool) -> None:
        """What attempts of an ended job wrote and its manifest does not name.

        has_result: whether the job has one, as far as is known; otherwise its manifest goes, too.
        """
        kept = self._committed(place) if has_result else []
        names = _OUTSIDE_ATTEMPTS if has_result else _OUTSIDE_ATTEMPTS - {MANIFEST}
        for found in self._store.list_under(place):
            outside = found.key.removeprefix(f"{place.key}/") in names
            if not outside and not any(_is_of(found, one) for one in kept):
                logger.info("removing %s, which an attempt left that was cut off", found)
                self._store.delete(found)

    def _committed(self, place: S3Place) -> list[S3Place]:
        body = self._store.find(place / MANIFEST)
        try:
            outputs = JobResult.model_validate_json(body).outputs.values() if body else ()
        except ValidationError:  # a stranger's: then nothing here was committed
            outputs = ()
        return [S3Place.parse(uri) for uri in outputs if not is_url(uri)]


def _is_of(found: S3Place, place: S3Place) -> bool:
    """Whether it is that object or, where the place is a directory, below it."""
    return found == place or (place.key.endswith("/") and str(found).startswith(str(place)))
