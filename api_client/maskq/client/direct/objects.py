"""The caller's side of the object store: upload inputs, read results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from maskq import s3
from maskq.contract.failures import FailureCode
from maskq.contract.locations import S3Uri
from maskq.contract.locations.output_names import copies_named_in
from maskq.contract.storage_layout import JOB_METADATA, JobStorage
from maskq.errors import StoreRefused
from maskq.per_process import PerProcess

T = TypeVar("T")


class Objects:
    """Connects at the first use in each process; safe to share between threads."""

    def __init__(self, endpoint_url: str | None, addressing: s3.Addressing = "path") -> None:
        connect = partial(s3.connect, endpoint_url, addressing=addressing)
        self._connection = PerProcess(lambda: s3.Connection(connect))

    def put(self, place: S3Uri, body: bytes, content_type: str) -> None:
        self._run(
            place,
            lambda client: client.put_object(
                Bucket=place.bucket, Key=place.key, Body=body, ContentType=content_type
            ),
        )

    def get(self, place: S3Uri) -> bytes:
        def read(client: Any) -> bytes:
            return bytes(client.get_object(Bucket=place.bucket, Key=place.key)["Body"].read())

        return self._run(place, read)

    def delete(self, place: S3Uri) -> None:
        self._run(place, lambda client: client.delete_object(Bucket=place.bucket, Key=place.key))

    def copy(self, source: S3Uri, place: S3Uri) -> None:
        """Copy within the store, without downloading."""
        self._run(
            source,
            lambda client: client.copy_object(
                Bucket=place.bucket,
                Key=place.key,
                CopySource={"Bucket": source.bucket, "Key": source.key},
            ),
        )

    def list_under(self, place: S3Uri) -> list[s3.Listed]:
        """Every object below `place`, that is, whose key begins with it and a slash."""
        return self._run(place, lambda client: list(s3.list_objects(client, place)))

    def delete_of(self, job: JobStorage) -> None:
        """Delete the objects that maskq wrote for a job; other objects in its folders stay."""
        if job.output_prefix is not None:
            self._delete_copies(job)
        for place in job.folders:
            try:
                listed = self.list_under(place)
            except StoreRefused as error:
                if error.code is not FailureCode.NOT_FOUND:
                    raise
                continue  # the bucket was deleted
            for one in listed:
                if job.has(one.place):
                    self.delete(one.place)

    def _delete_copies(self, job: JobStorage) -> None:
        """Delete the copies under an output_name whose metadata names the job."""
        for document in (job.manifest, job.error_file):
            body = self._found(self.get, document)
            for copy in copies_named_in(body) if body else ():
                metadata = self._found(self._metadata, copy) or {}
                if metadata.get(JOB_METADATA) == job.job_id:
                    self.delete(copy)

    def _metadata(self, place: S3Uri) -> dict[str, str]:
        def head(client: Any) -> dict[str, str]:
            return dict(client.head_object(Bucket=place.bucket, Key=place.key)["Metadata"])

        return self._run(place, head)

    def _found(self, read: Callable[[S3Uri], T], place: S3Uri) -> T | None:
        """What is read from an object; None if there is none."""
        try:
            return read(place)
        except StoreRefused as error:
            if error.code is not FailureCode.NOT_FOUND:
                raise
            return None

    def close(self) -> None:
        """Close the connections; the next use connects again."""
        if connection := self._connection.take():
            connection.close()

    def _run(self, place: S3Uri, work: Callable[[Any], T]) -> T:
        """The work's result. If S3 refuses the credentials, they are renewed once.

        Raises StoreUnavailable, StoreRefused.
        """

        def typed(client: Any) -> T:
            with s3.typed_errors(place):
                return work(client)

        try:
            return self._connection.get().run(typed)
        except s3.StoreError as error:
            raise s3.for_callers(error) from error
