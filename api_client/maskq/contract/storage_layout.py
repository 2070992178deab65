"""Names of the objects that maskq writes. No other module knows them.

    {home}                         s3://MASKQ_S3_BUCKET/MASKQ_OUTPUT_PREFIX
    {home}/{job id}/               a job's folder; with a tenant: {home}/tenants/{tenant}/{job id}/
        input                      the image that a client uploaded
        result.json                the manifest; creating it commits the job's result
        {token}/mask.png, …        the outputs of one attempt (`FILES` of outputs.py)
        {token}/binary/007.png     one file for each class
        error.json                 why the job failed, if it has output_error_file
    {output_prefix}/{job id}/      manifest and outputs of a job with an output_prefix
    {output_prefix}/{output_name}  copies under a name that the caller chose

Code that deletes asks `JobStorage.has` for each object: only objects with the names above are maskq's.
A copy may be deleted or overwritten only while its metadata JOB_METADATA holds the job's id. Manifest
and error.json name all copies.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from maskq.contract.ids import OWN_ID, TOKEN, is_own_id
from maskq.contract.jobs import JobRecord, JobResult, SegmentRequest
from maskq.contract.locations import S3Uri, redact
from maskq.contract.locations.output_names import ImageName, NamedFiles
from maskq.contract.outputs import FILES, Output, StoredOutput

INPUT: Final = "input"
MANIFEST: Final = "result.json"
ERROR_FILE: Final = "error.json"
TENANTS: Final = "tenants"
MANIFEST_TYPE: Final = "application/json"
MAX_MANIFEST_BYTES: Final = 2**20
# Metadata of copies, as boto3 names it: without `x-amz-meta-`.
SUBMITTED_METADATA: Final = "maskq-submitted"  # the job's created_ms

_OUTPUTS = "|".join(files.pattern for files in FILES.values())
# Below a job's folder.
_WRITTEN_BY_WORKERS = rf"{re.escape(MANIFEST)}|{re.escape(ERROR_FILE)}|{TOKEN}/(?:{_OUTPUTS})"
_WORKERS_NAME = re.compile(_WRITTEN_BY_WORKERS, re.ASCII)
_ANY_NAME = re.compile(rf"{INPUT}|{_WRITTEN_BY_WORKERS}", re.ASCII)
# Below home.
_OWNED = re.compile(
    rf"(?:{TENANTS}/(?P<tenant>[^/]+)/)?(?P<job>{OWN_ID})/(?:{INPUT}|{_WRITTEN_BY_WORKERS})",
    re.ASCII,
)
# Below any prefix of any deployment.
_WRITTEN = re.compile(rf"(?:.*/)?{OWN_ID}/(?:{_WRITTEN_BY_WORKERS})", re.ASCII | re.DOTALL)
_OUTPUT = re.compile(rf"(?P<folder>(?:.*/)?{OWN_ID})/{TOKEN}/(?:{_OUTPUTS})", re.ASCII | re.DOTALL)
_TOKEN = re.compile(TOKEN, re.ASCII)
# Never change it: the names of existing folders depend on it.
_NAMESPACE: Final = uuid.UUID("c7a1f0f2-3f1e-4d5b-9a44-5b0a4f6d7e21")


def class_file(folder: S3Uri, output: Output, class_id: int) -> S3Uri:
    """One class's file of an output that is one file per class. folder: the output's place."""
    files = FILES[output]
    return folder / files.of_class(class_id).removeprefix(files.place)


def is_output(key: str) -> bool:
    """Whether a key has the form that workers write, under any prefix of any deployment."""
    return _WRITTEN.fullmatch(key) is not None


def manifest_of_output(place: S3Uri) -> S3Uri | None:
    """The manifest that names an output, by the output's key; None if it lies elsewhere."""
    found = _OUTPUT.fullmatch(place.key)
    return S3Uri(place.bucket, f"{found['folder']}/{MANIFEST}") if found else None


@dataclass(frozen=True, slots=True)
class Owner:
    """The tenant and job that an object belongs to."""

    tenant: str | None
    job_id: str


@dataclass(frozen=True, slots=True)
class StorageLayout:
    """The object store of one deployment."""

    home: S3Uri  # MASKQ_S3_BUCKET and MASKQ_OUTPUT_PREFIX

    def job(
        self, job_id: str, *, tenant: str | None = None, output_prefix: str | None = None
    ) -> JobStorage:
        """Where the objects of a job are."""
        return JobStorage(job_id, tenant, output_prefix, self.home)

    def of(self, record: JobRecord) -> JobStorage:
        """Where the objects of a recorded job are."""
        request = record.request
        return self.job(record.id, tenant=request.tenant, output_prefix=request.output_prefix)

    def tenant(self, name: str) -> S3Uri:
        """The folder of a tenant's jobs."""
        return self.home / TENANTS / name

    def owner(self, place: S3Uri) -> Owner | None:
        """The job that an object below home belongs to; None if maskq writes no such name."""
        below = _below(self.home, place)
        found = _OWNED.fullmatch(below) if below is not None else None
        return Owner(found["tenant"], found["job"]) if found else None


@dataclass(frozen=True)
class JobStorage:
    """Where the objects of one job are. Made by StorageLayout."""

    job_id: str
    tenant: str | None
    output_prefix: str | None
    home: S3Uri

    @property
    def upload(self) -> S3Uri:
        """Where a client puts the image before it submits the job."""
        return self._at_home / INPUT

    @cached_property
    def outputs(self) -> S3Uri:
        """The folder of the manifest and the outputs."""
        if self.output_prefix:
            return S3Uri.parse(self.output_prefix, key_required=False) / self._folder
        return self._at_home

    @property
    def manifest(self) -> S3Uri:
        return self.outputs / MANIFEST

    @property
    def error_file(self) -> S3Uri:
        """Where a worker says why the job failed, if it has output_error_file."""
        return self.outputs / ERROR_FILE

    def named_files(self, request: SegmentRequest, source: str | None = None) -> NamedFiles | None:
        """Where output_name puts the job's files; None without an output_name.

        source: of the job. {stem} of an upload is that of the file name in it, or the job's id.
        """
        image = None
        if self.is_upload(request.image_uri):
            given = None if (source or "s3://").startswith("s3://") else source
            path = given.replace("\\", "/") if given else ""
            image = ImageName("", ImageName.of_path(path).stem or self._folder)
        return request.named_files(self._folder, image)

    def output(self, token: str, output: Output) -> S3Uri:
        """Where an attempt puts an output; of one file per class the folder, which ends in '/'."""
        return self.outputs / token / FILES[output].place

    def file(self, token: str, name: str) -> S3Uri:
        """Where an attempt puts a file: a name of one of FILES."""
        return self.outputs / token / name

    @cached_property
    def folders(self) -> tuple[S3Uri, ...]:
        """All folders that may hold objects of the job."""
        return tuple(dict.fromkeys((self._at_home, self._without_tenant, self.outputs)))

    def has(self, found: S3Uri) -> bool:
        """Whether an object has a name that maskq writes for this job."""
        for place in self.folders:
            names = _WORKERS_NAME if place not in self._upload_folders else _ANY_NAME
            below = _below(place, found)
            if below is not None and names.fullmatch(below):
                return True
        return False

    def is_upload(self, image_uri: str) -> bool:
        """Whether the job's image is one that a client uploaded for it, to be deleted with it."""
        return any(image_uri == str(folder / INPUT) for folder in self._upload_folders)

    def is_output(self, output: StoredOutput, uri: str) -> bool:
        """Whether an attempt of this job can have written this output there."""
        return self._token_of(output, uri) is not None

    def token_of(self, result: JobResult) -> str | None:
        """The token of the attempt that wrote the outputs; None if all went to URLs of the caller."""
        tokens = (self._token_of(output, uri) for output, uri in result.outputs.items())
        return next(filter(None, tokens), None)

    def refusal(self, result: JobResult, request: SegmentRequest, source: str | None = None) -> str:
        """Why a result cannot be this job's, as the end of a sentence; '' if it can.

        Each output must be where one attempt of this job writes it, or at the URL that the caller gave.
        source: of the job.
        """
        if result.outputs.keys() != request.outputs:
            return "it does not name the outputs that the job asks for"
        tokens = set()
        for output, uri in result.outputs.items():
            if isinstance(output, Output) and (url := request.output_urls.get(output)):
                if uri != redact(url):
                    return f"its {output} is not at the URL that the job's caller gave"
                continue
            token = self._token_of(output, uri)
            if token is None:
                return f"its {output} is outside the job's own folder {self.outputs}/"
            tokens.add(token)
        if len(tokens) > 1:
            return "its outputs come from several attempts"
        named = self.named_files(request, source)
        copies = named.copies(result.labels) if named else {}
        if result.copies != {file: str(place) for file, place in copies.items()}:
            return "it names other copies than the job's output_name"
        return ""

    def _token_of(self, output: StoredOutput, uri: str) -> str | None:
        """The token of the attempt that writes this output there; None if none does.

        Of an output that only a newer version knows, any name in the attempt's folder is its place.
        """
        folders = {self.outputs} if self.output_prefix else self._upload_folders
        for folder in folders:
            start = f"{folder}/"
            token, _, name = uri.removeprefix(start).partition("/")
            place = FILES[output].place if isinstance(output, Output) else name or None
            if uri == f"{start}{token}/{place}" and _TOKEN.fullmatch(token):
                return token
        return None

    @cached_property
    def _folder(self) -> str:
        """The folder's name. An id that is not a UUID never becomes part of a path."""
        if is_own_id(self.job_id):
            return self.job_id
        digest = hashlib.sha256(self.job_id.encode(errors="surrogateescape")).hexdigest()
        return str(uuid.uuid5(_NAMESPACE, digest))

    @cached_property
    def _at_home(self) -> S3Uri:
        if self.tenant is None:
            return self._without_tenant
        return self.home / TENANTS / self.tenant / self._folder

    @cached_property
    def _without_tenant(self) -> S3Uri:
        """The folder that jobs of tenants had, too, before tenants had folders."""
        return self.home / self._folder

    @cached_property
    def _upload_folders(self) -> set[S3Uri]:
        return {self._at_home, self._without_tenant}


def _below(folder: S3Uri, place: S3Uri) -> str | None:
    """The rest of the key below a folder; None if it is elsewhere."""
    start = (folder / "").key
    if place.bucket != folder.bucket or not place.key.startswith(start):
        return None
    return place.key.removeprefix(start)
