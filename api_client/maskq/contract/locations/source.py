"""The source of a job: the image that it was made from, as records, events and objects name it.

It is the object's place, `s3://bucket/key`, followed by `?versionId=…` if a version is known; or a URL
without its secrets; or the file name that the caller gave with an upload.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from maskq.contract.locations import is_url

VERSION: Final = "?versionId="
MAX_FILE_NAME: Final = 4096  # characters, of a file name with its folders
# User-defined metadata of the objects that workers write, without S3's prefix `x-amz-meta-`.
JOB_METADATA: Final = "maskq-job"
SOURCE_METADATA: Final = "maskq-source"
_MAX_METADATA_BYTES: Final = 1500  # S3 allows 2 KB for all metadata of an object
NO_VERSION: Final = "null"  # S3's version of an object that was written without versioning


def source_of(image_uri: str, version_id: str | None = None) -> str:
    """The source of an image that is in S3 or at a URL."""
    if is_url(image_uri):
        return _without_secrets(image_uri)
    if version_id in (None, "", NO_VERSION):
        return image_uri
    return f"{image_uri}{VERSION}{version_id}"


def version_read(source: str, image_uri: str, version_id: str | None) -> str:
    """The source, with the version that was read if it names an object without a version."""
    return source_of(image_uri, version_id) if source == image_uri else source


def file_name(given: str) -> str:
    """A caller's file name as text that can be stored: what is not Unicode becomes `\\udcff`.

    Of a name that is too long the end is kept.
    """
    return given.encode("utf-8", "backslashreplace").decode()[-MAX_FILE_NAME:]


def object_metadata(job_id: str, source: str | None) -> dict[str, str]:
    """The metadata of the objects of a job. Values are ASCII: other characters are percent-encoded."""
    metadata = {JOB_METADATA: quote(job_id)}
    encoded = quote(source or "", safe="/:")
    if 0 < len(encoded) <= _MAX_METADATA_BYTES:
        metadata[SOURCE_METADATA] = encoded
    return metadata


def job_in(metadata: Mapping[str, str]) -> str | None:
    """The id of the job that an object's metadata names; None if it names none."""
    return unquote(metadata.get(JOB_METADATA, "")) or None


def _without_secrets(url: str) -> str:
    """The URL without user, query and fragment: any of them may be a secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
