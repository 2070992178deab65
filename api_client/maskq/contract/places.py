"""A place in the object store, `s3://bucket/key`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")
_MAX_KEY_BYTES = 1024  # S3's own limit


@dataclass(frozen=True, slots=True)
class S3Place:
    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str, *, key_required: bool = True) -> S3Place:
        """Read `s3://bucket/key`. Raises ValueError with a sentence for the caller."""
        scheme, _, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not bucket:
            raise ValueError(f"{uri!r} is not a place in S3; expected s3://bucket/key")
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(f"{bucket!r} in {uri!r} is not a valid bucket name")
        if key_required and not key:
            raise ValueError(f"{uri!r} names a bucket but no object; expected s3://bucket/key")
        if len(key.encode()) > _MAX_KEY_BYTES:
            raise ValueError(f"the key in {uri[:80]!r}… is longer than {_MAX_KEY_BYTES} bytes")
        return cls(bucket, key)

    def __truediv__(self, name: str) -> S3Place:
        """The place `name` below this one."""
        return S3Place(self.bucket, f"{self.key.rstrip('/')}/{name}".lstrip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"
