"""Where images and outputs are: `s3://bucket/key`, or a presigned http(s) URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from maskq.inert import without_secrets

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")
MAX_KEY_BYTES: Final = 1024  # S3's own limit


@dataclass(frozen=True, slots=True)
class S3Uri:
    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str, *, key_required: bool = True) -> S3Uri:
        """Read `s3://bucket/key`. Raises ValueError with a message for the caller."""
        scheme, _, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not bucket:
            raise ValueError(f"{uri!r} is not a valid S3 URI; expected s3://bucket/key")
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(f"{bucket!r} in {uri!r} is not a valid bucket name")
        if key_required and not key:
            raise ValueError(f"{uri!r} names a bucket but no object; expected s3://bucket/key")
        if len(key.encode()) > MAX_KEY_BYTES:
            raise ValueError(f"the key in {uri[:80]!r}… is longer than {MAX_KEY_BYTES} bytes")
        return cls(bucket, key)

    def __truediv__(self, name: str) -> S3Uri:
        """The URI of `name` below this one."""
        return S3Uri(self.bucket, f"{self.key.rstrip('/')}/{name}".lstrip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def is_url(uri: str) -> bool:
    """Whether it is an http(s) URL, not an S3 URI."""
    return uri.startswith(("https://", "http://"))


def http_url(url: str) -> str:
    """The URL, if its form is valid. Workers check its address when they call it.

    Raises ValueError with a message that does not repeat the secret of a presigned URL.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("https", "http") and parts.hostname and (parts.port or 1)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"{without_secrets(url)!r} is not a valid http(s) URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL that workers call must not hold a user name or password")
    return url


HIDDEN: Final = "?…"


def redact(url: str) -> str:
    """The URL without its query, which is the secret of a presigned URL: for records and logs."""
    plain, question, _ = url.partition("?")
    return plain + HIDDEN if question else url


PresignedUrl = Annotated[str, Field(max_length=8192), AfterValidator(http_url)]


class PrivateUrls(BaseModel):
    """The complete URLs of a request that hold secrets. The worker gets them until the job ends."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    image_uri: str = Field(default="", repr=False)
    output_urls: dict[str, str] = Field(default_factory=dict, repr=False)  # by Output
