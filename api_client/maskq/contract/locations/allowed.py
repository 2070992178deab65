"""Where a job may read and write: the allow-listed locations, and the objects of its own tenant.

Objects that maskq wrote (uploads, outputs, manifests) belong to the tenant of their job. No allow-list
opens them to another tenant.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from maskq.contract.locations import S3Uri
from maskq.contract.storage_layout import JobStorage, Owner, StorageLayout, is_output

CONDITIONAL_MARK: Final = ".maskq-conditional-write"  # below home; workers write it when they start
_TENANT: Final = "{tenant}"
# The settings that errors name.
_INPUT_SETTINGS: Final = "MASKQ_ALLOWED_LOCATIONS or MASKQ_ALLOWED_BUCKETS of the worker"
_OUTPUT_SETTINGS: Final = f"MASKQ_ALLOWED_OUTPUT_LOCATIONS, {_INPUT_SETTINGS}"
_AMBIGUOUS = re.compile(r"%|\\|//|(?:^|/)\.{1,2}(?:/|$)|^/")


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket, or a folder in one. {tenant} stands for the tenant of the job."""

    bucket: str
    prefix: str  # without a trailing slash

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read `s3://bucket/prefix`. Raises ValueError with a message for the operator."""
        try:
            S3Uri.parse(text.replace(_TENANT, "tenant"), key_required=False)
        except ValueError as error:
            raise ValueError(f"{error}; a location is s3://bucket or s3://bucket/prefix") from None
        if set("{}") & set(text.replace(_TENANT, "")):
            raise ValueError(f"{text!r}: the only placeholder of a location is {_TENANT}")
        bucket, _, prefix = text.removeprefix("s3://").partition("/")
        if len(_interpretations(prefix.rstrip("/"))) > 1:
            raise ValueError(f"{text!r}: a location must not hold '..', '//' or percent sequences")
        return cls(bucket, prefix.rstrip("/"))

    def covers(self, bucket: str, key: str, tenant: str | None) -> bool:
        """Whether an object is in this location. The prefix `a` covers `a` and `a/b`, but not `ab`."""
        mine = (self.bucket, self.prefix)
        if any(_TENANT in part for part in mine):
            if tenant is None:
                return False
            mine = (self.bucket.replace(_TENANT, tenant), self.prefix.replace(_TENANT, tenant))
        if bucket != mine[0]:
            return False
        return not mine[1] or key == mine[1] or key.startswith(f"{mine[1]}/")


class AllowedLocations:
    """Decides which objects a job may read and write."""

    def __init__(
        self,
        layout: StorageLayout | None = None,
        *,
        inputs: Collection[Location] = (),
        outputs: Collection[Location] = (),
    ) -> None:
        """
        layout: of the deployment; None: no object belongs to a tenant.
        inputs: where jobs may read; empty: anywhere.
        outputs: where jobs may write; default: the inputs.
        """
        self._layout = layout
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs) or self._inputs

    def refuse_read(self, place: S3Uri, job: JobStorage | None) -> str:
        """Why the job may not read an object; '' if it may. job None: a read without a tenant."""
        return self._refused(place, job, self._inputs, "read", _INPUT_SETTINGS)

    def refuse_write(self, place: S3Uri, job: JobStorage | None) -> str:
        """Why the job may not write, list or delete an object; '' if it may."""
        if job is None and self._layout and place == self._layout.home / CONDITIONAL_MARK:
            return ""
        return self._refused(place, job, self._outputs, "write", _OUTPUT_SETTINGS)

    def _refused(
        self,
        place: S3Uri,
        job: JobStorage | None,
        locations: Collection[Location],
        action: str,
        settings: str,
    ) -> str:
        tenant = job.tenant if job else None
        for key in _interpretations(place.key):
            if owner := self._owner(place.bucket, key):
                if owner.tenant != tenant and not _is_from_before_tenants(owner, job):
                    return f"{place} belongs to a job of another tenant"
            elif locations and not any(
                location.covers(place.bucket, key, tenant) for location in locations
            ):
                return f"{place} is outside the locations that this job may {action} ({settings})"
        return ""

    def _owner(self, bucket: str, key: str) -> Owner | None:
        return self._layout.owner(S3Uri(bucket, key)) if self._layout else None


def _is_from_before_tenants(owner: Owner, job: JobStorage | None) -> bool:
    """Whether the object is the job's own, written before tenants had folders."""
    return owner.tenant is None and job is not None and owner.job_id == job.job_id


def has_own_form(key: str) -> bool:
    """Whether a store could take a key for one of maskq's own outputs or manifests."""
    return any(is_output(one) for one in _interpretations(key))


def _interpretations(key: str) -> set[str]:
    """The key, and the key that a store or proxy sees which decodes and normalizes paths.

    S3 does neither. Because others do, `a/../b` is allowed only if both `a` and `b` are.
    """
    if not _AMBIGUOUS.search(key):
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
