"""What a caller may give as an image: a path, bytes, a PIL image, 's3://bucket/key' or a URL."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from maskq.contract.image_formats import MEDIA_TYPES
from maskq.contract.locations import is_url, redact
from maskq.contract.locations.source import file_name, source_of
from maskq.errors import InvalidRequest
from maskq.inert import without_secrets

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True, slots=True)
class NamedImage:
    """The bytes of an image whose caller gave its file name; '' if the caller gave none."""

    name: str
    body: bytes = field(repr=False)


ImageSource: TypeAlias = "str | Path | bytes | PIL.Image.Image | NamedImage"

_UNKNOWN: Final = "application/octet-stream"


def read_image(image: ImageSource) -> tuple[bytes, str]:
    """The bytes to upload and their content type. Raises InvalidRequest for any other type."""
    if isinstance(image, NamedImage):
        return image.body, MEDIA_TYPES.get(Path(image.name).suffix.lower(), _UNKNOWN)
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image), _UNKNOWN
    if isinstance(image, str | Path):
        path = Path(image)
        try:
            return path.read_bytes(), MEDIA_TYPES.get(path.suffix.lower(), _UNKNOWN)
        except OSError as error:
            raise InvalidRequest(f"cannot read {path}: {error.strerror or error}") from error
    if hasattr(image, "save"):
        buffer = io.BytesIO()
        lossless = (
            image if image.mode in ("RGB", "RGBA", "L", "P", "1", "I;16") else image.convert("RGB")
        )
        lossless.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue(), "image/png"
    raise InvalidRequest(
        f"cannot submit {type(image).__name__}; give a path, bytes, a PIL image or 's3://bucket/key'"
    )


def is_reference(image: ImageSource) -> bool:
    """Whether the image is an s3:// place or a URL, which needs no upload."""
    return isinstance(image, str) and (image.startswith("s3://") or is_url(image))


def given_name(image: ImageSource) -> str:
    """The file name that the caller gave with an image to upload; '' if there is none."""
    if isinstance(image, NamedImage):
        return file_name(image.name)
    if isinstance(image, str | Path) and not is_reference(image):
        return file_name(str(image))
    return ""


def source_given(image: ImageSource, version_id: str | None = None) -> str | None:
    """What records will name as the source of an image; None if only the gateway or ledger knows."""
    if isinstance(image, str) and is_reference(image):
        return source_of(image, version_id)
    return given_name(image) or None


def name_of(image: ImageSource) -> str:
    """The name that identifies an image within a run: its path, s3:// place or URL, else a digest.

    For a URL with a secret (a query or password): the URL without it, and a digest of the whole URL.
    """
    if isinstance(image, str) and is_url(image) and without_secrets(redact(image)) != image:
        return without_secrets(redact(image)) + _digest(image.encode(errors="surrogateescape"))[:16]
    if isinstance(image, str | Path):
        return str(image)
    return f"sha256:{_digest(read_image(image)[0])}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
