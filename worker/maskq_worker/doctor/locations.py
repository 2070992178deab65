"""Locations where jobs may read: do they exist, and may this worker list them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from maskq import s3
from maskq.cli.doctor.check import Check, Finding, Role, Target, ok, trouble, unknown, warning
from maskq.contract.locations import S3Uri
from maskq.errors import InvalidRequest
from maskq_worker.settings import WorkerSettings


class LocationsCheck(Check):
    area = "locations of jobs"
    roles = frozenset({Role.WORKER})

    def run(self, target: Target) -> Iterator[Finding]:
        try:
            settings = WorkerSettings.load()
            client = s3.connect(
                settings.s3_endpoint_url, addressing=settings.s3_addressing, attempts=1
            )
        except InvalidRequest:
            yield unknown("buckets", "the settings are not valid")
            return
        buckets = {one.bucket for one in settings.allowed_locations} | settings.allowed_buckets
        with closing(client):
            if not buckets:
                yield warning(
                    "reading",
                    "jobs may read every bucket that the credentials allow",
                    "set MASKQ_ALLOWED_LOCATIONS if callers are not trusted (docs/tenants.md)",
                )
            for bucket in sorted(buckets):
                yield _listed(client, bucket)


def _listed(client: object, bucket: str) -> Finding:
    place = S3Uri(bucket, "")
    try:
        with s3.typed_errors(f"bucket {bucket}"):
            client.list_objects_v2(Bucket=place.bucket, MaxKeys=1)  # type: ignore[attr-defined]
    except s3.StoreError as error:
        return trouble(
            "reading",
            str(error),
            "grant it (deploy/s3/worker.json), or correct MASKQ_ALLOWED_LOCATIONS",
        )
    return ok("reading", f"lists bucket {bucket}")
