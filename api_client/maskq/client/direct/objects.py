"""The caller's side of the object store: upload inputs, read results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from maskq import s3
from maskq.contract.failures import FailureCode
from maskq.contract.locations import S3Uri
from maskq.contract.locations.output_names import copies_named_in
from maskq.contract.locations.source import JOB_METADATA
from maskq.contract.storage_layout import JobStorage
from maskq.errors import StoreRefused
from maskq.per_process import PerProcess
from maskq.s3.sources import Boto3Client, S3Source, SharedClient, session_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Described:
    """An object without its content."""

    content_type: str
    job_id: str | None  # of the job whose output it is, by its metadata


class Objects:
    """Connects at the first use in each process; safe to share between threads."""

    def __init__(
        self,
        endpoint_url: str | None,
        addressing: s3.Addressing = "path",
        source: S3Source | None = None,
    ) -> None:
        """source: whose credentials are used, or which client; default: a new boto3 session's."""
        session = session_of(source)
        if source is None or session is not None:
            connect: Callable[[], Any] = partial(
                s3.connect, endpoint_url, addressing=addressing, session=session
            )
        else:
            connect = SharedClient(cast("Boto3Client", source)).get
        self._connection = PerProcess(lambda: s3.Connection(connect))

    def put(self, place: S3Uri, body: bytes, content_type: str) -> None:
        self._run(
            place,
            lambda client: client.put_object(
                Bucket=place.bucket, Key=place.key, Body=body, ContentType=content_type
            ),
        )

    def get(self, place: S3Uri, *, version_id: str | None = None) -> bytes:
        which = {"VersionId": version_id} if version_id else {}

        def read(client: Any) -> bytes:
            answer = client.get_object(Bucket=place.bucket, Key=place.key, **which)
            return bytes(answer["Body"].read())

        return self._run(place, read)

    def metadata(self, place: S3Uri) -> dict[str, str]:
        """The object's user-defined metadata, without S3's prefix `x-amz-meta-`."""

        def read(client: Any) -> dict[str, str]:
            return dict(client.head_object(Bucket=place.bucket, Key=place.key)["Metadata"])

        return self._run(place, read)

    def describe(self, place: S3Uri, version_id: str | None = None) -> Described:
        """The content type of an object, and whose copy it is."""
        which = {"VersionId": version_id} if version_id else {}

        def head(client: Any) -> Described:
            answer = client.head_object(Bucket=place.bucket, Key=place.key, **which)
            return Described(answer.get("ContentType", ""), answer["Metadata"].get(JOB_METADATA))

        return self._run(place, head)

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
        for place in job.folders:
            try:
                listed = self.list_under(place)
            except StoreRefused as error:
                if error.code is not FailureCode.NOT_FOUND:
                    raise
                continue  # the bucket was deleted
            ours = [one.place for one in listed if job.has(one.place)]
            for document in (job.manifest, job.error_file):
                if job.output_prefix is not None and document in ours:
                    self._delete_copies(document, job)
            for found in ours:
                self.delete(found)

    def _delete_copies(self, document: S3Uri, job: JobStorage) -> None:
        """Delete the copies that a document of the job names and whose metadata names the job."""
        for copy in copies_named_in(self.get(document)):
            if self._exists(copy) and self.describe(copy).job_id == job.job_id:
                self.delete(copy)

    def _exists(self, place: S3Uri) -> bool:
        """From a listing: to HeadObject, S3 answers 403 if the object is missing and the caller may not
        list the whole bucket."""

        def listed(client: Any) -> bool:
            answer = client.list_objects_v2(Bucket=place.bucket, Prefix=place.key, MaxKeys=1)
            return any(found["Key"] == place.key for found in answer.get("Contents", ()))

        return self._run(place, listed)

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
