"""Finding the result that states the digests of outputs."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import ValidationError

from maskq.cli.verify.files import JobFiles, LocalFiles, ResultFiles, StoredFiles
from maskq.client.client import Client
from maskq.contract import FailureCode, JobRecord
from maskq.contract.jobs import Manifest
from maskq.contract.locations import S3Uri
from maskq.contract.locations.source import job_in
from maskq.contract.storage_layout import MANIFEST, MAX_MANIFEST_BYTES, manifest_of_output
from maskq.errors import InvalidRequest, JobNotFound, StoreUnavailable

if TYPE_CHECKING:
    from maskq.client.direct.objects import Objects


@dataclass(frozen=True, slots=True)
class StatedResult:
    """A result with the digests of its outputs."""

    name: str  # for messages
    manifest: Manifest
    files: ResultFiles
    # The result.json in the store, beside a record: its place, and None if it is not readable.
    stored: tuple[str, Manifest | None] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A result and, if one output was given instead of a result, that output."""

    stated: StatedResult
    place: str = ""
    body: bytes | None = None

    @property
    def digest(self) -> str | None:
        """The SHA-256 of the output that was given."""
        return None if self.body is None else hashlib.sha256(self.body).hexdigest()


class Results:
    """Finds results. Connects only if the store or the ledger is needed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._client: Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = self._stack.enter_context(Client.from_env())
        return self._client

    def objects(self) -> Objects:
        """The object store. Raises InvalidRequest over HTTP."""
        return self.client.objects

    def find(self, given: str, of: str | None) -> Found:
        """given: a job id, or a file or object that is a result.json or one output of a job.

        of: the result of an output. Raises InvalidRequest, JobNotFound, StoreUnavailable.
        """
        place, body = given, self._body_of(given)
        if body is None:
            return Found(self._of_job(given))
        if of is None and (stated := self._of_manifest(given, body)):
            return Found(stated)
        stated = self._stated_by(of) if of is not None else self._beside(given)
        return Found(stated, place, body)

    def _stated_by(self, given: str) -> StatedResult:
        body = self._body_of(given)
        if body is None:
            return self._of_job(given)
        if stated := self._of_manifest(given, body):
            return stated
        raise InvalidRequest(f"--result {given} is not a result.json")

    def _body_of(self, given: str) -> bytes | None:
        """The bytes of a file or object; None if a job's id is given."""
        if given.startswith("s3://"):
            return self.objects().get(_parsed(given))
        try:
            return Path(given).read_bytes()
        except FileNotFoundError:
            if "/" in given or Path(given).suffix:
                raise InvalidRequest(
                    f"{given} does not exist; give a job id, a result.json, or an output"
                ) from None
            return None
        except OSError as error:
            raise InvalidRequest(f"cannot read {given}: {error.strerror or error}") from None

    def _of_job(self, job_id: str) -> StatedResult:
        job = self.client.get(job_id)
        record = job.refresh()
        result = job.result()
        manifest = Manifest(
            **dict(result.details),
            job_id=record.id,
            source=record.source,
            request=record.request.deciding_outputs(),
        )
        name = f"the record of job {record.id}"
        stored = self._stored_manifest(record)
        return StatedResult(name, _with_digests(manifest, name), JobFiles(result), stored)

    def _stored_manifest(self, record: JobRecord) -> tuple[str, Manifest | None] | None:
        """The job's result.json; None over HTTP, because the gateway does not offer it."""
        try:
            objects, layout = self.objects(), self.client.session.layout
        except InvalidRequest:
            return None
        place = layout.of(record).manifest
        try:
            return str(place), Manifest.model_validate_json(objects.get(place))
        except ValidationError:
            return str(place), None
        except StoreUnavailable as error:
            if error.code is not FailureCode.NOT_FOUND:
                raise
            return str(place), None

    def _of_manifest(self, given: str, body: bytes) -> StatedResult | None:
        """The result in a result.json; None if the bytes are something else."""
        try:
            manifest = (
                Manifest.model_validate_json(body) if len(body) <= MAX_MANIFEST_BYTES else None
            )
        except ValidationError:
            manifest = None
        if manifest is None or not manifest.outputs:
            return None
        if given.startswith("s3://"):
            folder = given.removesuffix(MANIFEST)
            files: ResultFiles = StoredFiles(manifest, self.objects, folder)
        else:
            stored = StoredFiles(manifest, self.objects, "")
            files = LocalFiles(Path(given).parent, stored)
        return StatedResult(given, _with_digests(manifest, given), files)

    def _beside(self, given: str) -> StatedResult:
        """The result of one output: by the object's metadata, or the result.json in the same folder."""
        if given.startswith("s3://"):
            return self._of_object(_parsed(given))
        beside = Path(given).parent / MANIFEST
        if not beside.exists():
            raise InvalidRequest(
                f"there is no {MANIFEST} beside {given}, which names its job; give --result with the "
                f"job id or a {MANIFEST}"
            )
        return self._stated_by(str(beside))

    def _of_object(self, place: S3Uri) -> StatedResult:
        job_id = job_in(self.objects().metadata(place))
        if job_id:
            try:
                return self._of_job(job_id)
            except JobNotFound:  # its retention has passed, and result.json is still there
                pass
        manifest = manifest_of_output(place)
        if manifest is None:
            named = f"names job {job_id}, which has no record" if job_id else "names no job"
            raise InvalidRequest(f"{place} {named}; give --result with its {MANIFEST}")
        return self._stated_by(str(manifest))


def _parsed(uri: str) -> S3Uri:
    try:
        return S3Uri.parse(uri)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


def _with_digests(manifest: Manifest, name: str) -> Manifest:
    if not manifest.output_sha256:
        raise InvalidRequest(f"{name} states no SHA-256: an older version of maskq wrote it")
    return manifest
