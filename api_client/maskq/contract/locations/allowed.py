"""Where a job may read and write: MASKQ_ALLOWED_LOCATIONS, and what belongs to its own tenant.

What maskq itself wrote (uploads, outputs, manifests) belongs to the tenant of its job, and no list
opens it to another tenant.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from maskq.contract.locations import S3Uri
from maskq.contract.storage_layout import JobStorage, Owner, StorageLayout

CONDITIONAL_MARK: Final = ".maskq-conditional-write"  # below home; a worker's own, at its start
_TENANT: Final = "{tenant}"
# Where a worker has the locations from: named in errors.
_INPUT_SETTINGS: Final = "MASKQ_ALLOWED_LOCATIONS or MASKQ_ALLOWED_BUCKETS of the worker"
_OUTPUT_SETTINGS: Final = f"MASKQ_ALLOWED_OUTPUT_LOCATIONS, {_INPUT_SETTINGS}"
_MAY_BE_READ_OTHERWISE = re.compile(r"%|\\|//|(?:^|/)\.{1,2}(?:/|$)|^/")


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket, or a folder in one; for one tenant where it holds {tenant}."""

    bucket: str
    prefix: str  # without a slash at its end

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read `s3://bucket/prefix`. Raises ValueError with a sentence."""
        try:
            S3Uri.parse(text.replace(_TENANT, "tenant"), key_required=False)
        except ValueError as error:
            raise ValueError(f"{error}; a location is s3://bucket or s3://bucket/prefix") from None
        if set("{}") & set(text.replace(_TENANT, "")):
            raise ValueError(f"{text!r}: the only placeholder of a location is {_TENANT}")
        bucket, _, prefix = text.removeprefix("s3://").partition("/")
        if len(_readings(prefix.rstrip("/"))) > 1:
            raise ValueError(f"{text!r}: a location has no '..', '//' or percent sequences")
        return cls(bucket, prefix.rstrip("/"))

    def covers(self, bucket: str, key: str, tenant: str | None) -> bool:
        """Whether it is in this location. The prefix `a` covers `a` and `a/b`, and not `ab`."""
        mine = (self.bucket, self.prefix)
        if any(_TENANT in part for part in mine):
            if tenant is None:
                return False
            mine = (self.bucket.replace(_TENANT, tenant), self.prefix.replace(_TENANT, tenant))
        if bucket != mine[0]:
            return False
        return not mine[1] or key == mine[1] or key.startswith(f"{mine[1]}/")


class AllowedLocations:
    """Decides for each request of a job to the object store."""

    def __init__(
        self,
        layout: StorageLayout | None = None,
        *,
        inputs: Collection[Location] = (),
        outputs: Collection[Location] = (),
    ) -> None:
        """
        layout: of the deployment; None: there is none, and nothing belongs to a tenant.
        inputs: where jobs may read; empty: anywhere.
        outputs: where jobs may write; default: the same.
        """
        self._layout = layout
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs) or self._inputs

    def refuse_read(self, place: S3Uri, job: JobStorage | None) -> str:
        """Why the job may not read an object; '' if it may. None: no job, and so no tenant."""
        return self._refused(place, job, self._inputs, "read", _INPUT_SETTINGS)

    def refuse_write(self, place: S3Uri, job: JobStorage | None) -> str:
        """Why the job may not write, list or delete there; '' if it may."""
        if job is None and self._layout and place == self._layout.home / CONDITIONAL_MARK:
            return ""
        return self._refused(place, job, self._outputs, "write", _OUTPUT_SETTINGS)

    def _refused(
        self,
        place: S3Uri,
        job: JobStorage | None,
        locations: Collection[Location],
        what: str,
        settings: str,
    ) -> str:
        tenant = job.tenant if job else None
        for key in _readings(place.key):
            if owner := self._owner(place.bucket, key):
                if owner.tenant != tenant and not _was_without_tenant(owner, job):
                    return f"{place} belongs to a job of another tenant"
            elif locations and not any(
                location.covers(place.bucket, key, tenant) for location in locations
            ):
                return f"{place} is outside the locations that this job may {what} ({settings})"
        return ""

    def _owner(self, bucket: str, key: str) -> Owner | None:
        return self._layout.owner(S3Uri(bucket, key)) if self._layout else None


def _was_without_tenant(owner: Owner, job: JobStorage | None) -> bool:
    """Whether it is the job's own, from before tenants had folders."""
    return owner.tenant is None and job is not None and owner.job_id == job.job_id


def _readings(key: str) -> set[str]:
    """The key, and what a store or a proxy may make of it that decodes and normalises paths.

    S3 takes a key as it is. Others do not, so `a/../b` is in `a` only if `b` is allowed as well.
    """
    if not _MAY_BE_READ_OTHERWISE.search(key):
        return {key}
    plain = key
    while (decoded := unquote(plain)) != plain:
        plain = decoded
    parts: list[str] = []
    for part in plain.replace("\\", "/").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return {key, "/".join(parts)}
