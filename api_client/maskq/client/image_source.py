"""What a caller may give as an image: a path, bytes, a PIL image, 's3://bucket/key' or a URL."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from maskq.contract.image_formats import MEDIA_TYPES
from maskq.contract.locations import is_url, redact
from maskq.errors import InvalidRequest
from maskq.inert import without_secrets

if TYPE_CHECKING:
    import PIL.Image

ImageSource: TypeAlias = "str | Path | bytes | PIL.Image.Image"

_UNKNOWN: Final = "application/octet-stream"


def read_image(image: ImageSource) -> tuple[bytes, str]:
    """The bytes to upload and their content type. Raises InvalidRequest for any other type."""
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
