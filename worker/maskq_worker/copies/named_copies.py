"""Copies committed outputs to the names that output_name gives them, and removes such copies.

An object is overwritten or deleted only while its metadata names the job. With output_replace, copies
of jobs that were submitted earlier are overwritten, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from maskq.contract import FailureCode, JobRecord, JobResult
from maskq.contract.locations import S3Uri
from maskq.contract.locations.allowed import has_own_form
from maskq.contract.locations.output_names import NamedFiles
from maskq.contract.locations.source import JOB_METADATA
from maskq.contract.storage_layout import SUBMITTED_METADATA, JobStorage
from maskq_worker.errors import JobError, PermanentError, StoreAway, TransientError
from maskq_worker.storage.object_store import AlreadyThere, ObjectState, ObjectStore, WholeObject

_TRIES: Final = 5  # for an object that others write or delete at the same time
_ATTEMPT_METADATA: Final = "maskq-attempt"  # tells from which attempt's output the bytes are


class NotPublished(PermanentError):
    """The outputs are committed, but a copy is refused: the job fails, and its result is removed."""

    def __init__(self, error: PermanentError, result: JobResult) -> None:
        super().__init__(error.code, error.message)
        self.result = result


class NamedCopies:
    """Shared by the job threads. It does nothing for jobs without an output_name."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def check(self, job: JobStorage, record: JobRecord) -> None:
        """Raise JobError if a name cannot be used. Names with a class id are checked when written."""
        named = job.named_files(record.request, record.source)
        if named is None:
            return
        for place in _places(named):
            self._store.check_writable(job, place)
            if has_own_form(place.key):
                raise PermanentError(
                    FailureCode.INVALID_REQUEST,
                    f"output_name gives {place}, which has the form of maskq's own names; choose "
                    f"another output_name",
                )
        for place in named.copies(()).values():
            _check_replaceable(place, self._store.state_of(place, job=job), record)

    def planned(self, job: JobStorage, record: JobRecord, result: JobResult) -> JobResult:
        """The result with the places of its copies, which are not written yet."""
        named = job.named_files(record.request, record.source)
        if named is None:
            return result
        places = named.copies(result.labels)
        return result.model_copy(update={"copies": {file: str(at) for file, at in places.items()}})

    def publish(
        self,
        job: JobStorage,
        record: JobRecord,
        result: JobResult,
        reserve: Callable[[int], None],
    ) -> JobResult:
        """Write the copies of a committed result that are missing. Returns the result.

        Any attempt may do that, also several at once. reserve: waits until so many bytes of memory are
        free; it is called before an output is read, and what it reserved before is free then. Raises
        NotPublished if a copy is refused, and TransientError if a later attempt can go on.
        """
        token = job.token_of(result)
        if not result.copies or token is None:
            return result
        try:
            for file, uri in result.copies.items():
                read = partial(self._read, job.file(token, file), job, reserve)
                self._write(job, record, token, S3Uri.parse(uri), read)
            self._remove_earlier_error_file(job, record)
        except PermanentError as error:
            raise NotPublished(error, result) from error
        return result

    def publish_error_file(self, job: JobStorage, record: JobRecord, body: bytes) -> None:
        """Write the named copy of an error file. Raises PermanentError if it is refused, JobError."""
        if named := job.named_files(record.request, record.source):
            document = WholeObject(body, "application/json", {})
            self._write(job, record, "", named.error_file(), lambda: document)

    def remove(self, place: S3Uri, job: JobStorage) -> None:
        """Delete a copy if it is the job's. Raises JobError."""
        state = self._store.state_of(place, job=job)
        if state and state.metadata.get(JOB_METADATA) == job.job_id:
            self._store.delete(place, job=job)

    def remove_all(self, places: Iterable[S3Uri], job: JobStorage) -> bool:
        """Delete copies that are the job's. Returns False if some may be left."""
        are_removed = True
        for place in places:
            try:
                self.remove(place, job)
            except StoreAway:
                return False
            except JobError:
                are_removed = False
        return are_removed

    def _read(self, place: S3Uri, job: JobStorage, reserve: Callable[[int], None]) -> WholeObject:
        """Read an output after its memory is reserved."""
        state = self._store.state_of(place, job=job)
        reserve(state.size if state else 0)
        return self._store.read_whole(place, job=job)

    def _write(
        self,
        job: JobStorage,
        record: JobRecord,
        token: str,
        place: S3Uri,
        read: Callable[[], WholeObject],
    ) -> None:
        """Write an object to a name, unless the name has it already. read: gets what to write."""
        ours = {
            JOB_METADATA: record.id,
            SUBMITTED_METADATA: str(record.created_ms),
            _ATTEMPT_METADATA: token,
        }
        for _ in range(_TRIES):
            state = self._store.state_of(place, job=job)
            if state and token and ours.items() <= state.metadata.items():
                return
            _check_replaceable(place, state, record)
            original = read()
            try:
                self._store.put_named(
                    place,
                    WholeObject(original.body, original.content_type, original.metadata | ours),
                    replaces=state,
                    job=job,
                )
                return
            except AlreadyThere:  # somebody wrote or deleted it in between
                continue
        raise TransientError(
            FailureCode.STORE_UNAVAILABLE,
            f"{place} changes all the time; others write there as well",
        )

    def _remove_earlier_error_file(self, job: JobStorage, record: JobRecord) -> None:
        """Delete the error file of a job that this one retries or replaces."""
        named = job.named_files(record.request, record.source)
        if named is None or not record.request.output_error_file:
            return
        place = named.error_file()
        state = self._store.state_of(place, job=job)
        if state and _is_replaceable(state, record):
            self._store.delete(place, job=job)


def _places(named: NamedFiles) -> list[S3Uri]:
    """One place of each kind, for checks that do not depend on the class. Raises PermanentError."""
    try:
        return [*named.copies((0,)).values(), named.error_file()]
    except ValueError as error:
        raise PermanentError(FailureCode.INVALID_REQUEST, f"output_name: {error}") from None


def _check_replaceable(place: S3Uri, state: ObjectState | None, record: JobRecord) -> None:
    """Raise PermanentError output_exists if the object at a name must stay as it is."""
    if state is None or _is_replaceable(state, record):
        return
    owner = state.metadata.get(JOB_METADATA)
    if owner is None:
        whose = "no job of maskq wrote it"
    elif record.request.output_replace:
        whose = f"job {owner}, which was submitted later, wrote it"
    else:
        whose = f"job {owner} wrote it"
    raise PermanentError(
        FailureCode.OUTPUT_EXISTS,
        f"{place} exists, and {whose}; choose another output_name ({{job_id}} makes it unique), "
        f"delete the object, or set output_replace to replace copies of earlier jobs",
    )


def _is_replaceable(state: ObjectState, record: JobRecord) -> bool:
    owner = state.metadata.get(JOB_METADATA)
    if owner is None:
        return False
    if owner in (record.id, record.retry_of):
        return True
    submitted = state.metadata.get(SUBMITTED_METADATA, "")
    is_earlier = not submitted.isdecimal() or int(submitted) <= record.created_ms
    return record.request.output_replace and is_earlier
