"""What a caller may give as an image, and its bytes: a file, an array, a PIL image, a URI."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from maskq.client.images import pixels
from maskq.contract.failures import FailureCode
from maskq.contract.image_formats import SIGNATURE_BYTES, format_of, media_type_of
from maskq.contract.locations import is_url, redact
from maskq.contract.locations.source import file_name, source_of
from maskq.errors import InvalidRequest
from maskq.inert import without_secrets

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image


@dataclass(frozen=True, slots=True)
class NamedImage:
    """The bytes of an image whose caller gave its file name; '' if the caller gave none."""

    name: str
    body: bytes = field(repr=False)


class BinaryFile(Protocol):
    """A file that is open for reading bytes; it is read from its position to its end."""

    def read(self) -> bytes:
        """The rest of the file."""


if TYPE_CHECKING:
    ImageSource: TypeAlias = (
        str
        | Path
        | bytes
        | bytearray
        | memoryview
        | BinaryFile
        | PIL.Image.Image
        | np.ndarray[Any, Any]
        | NamedImage
    )
else:
    ImageSource = "ImageSource"

_ACCEPTED: Final = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIF"


def read_image(image: ImageSource) -> tuple[bytes, str]:
    """The bytes to upload and their content type. Raises InvalidRequest unless they are an image's."""
    if isinstance(image, NamedImage):
        return _typed(image.body, image.name or "the data")
    if isinstance(image, bytes | bytearray | memoryview):
        return _typed(bytes(image), "the data")
    if isinstance(image, str | Path):
        return _file(Path(image))
    if hasattr(image, "read"):
        return _typed(contents(image), "the file object")
    body = pixels.png_of(image)
    if body is None:
        raise InvalidRequest(
            f"cannot submit {type(image).__name__}; give a path, bytes, a binary file, a PIL image, a "
            f"numpy array or 's3://bucket/key'"
        )
    return body, "image/png"


def contents(file: BinaryFile) -> bytes:
    """The rest of a file object. Raises InvalidRequest if reading it gives no bytes."""
    try:
        body = file.read()
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise InvalidRequest(f"cannot read the file object: {error}") from error
    if not isinstance(body, bytes | bytearray | memoryview):
        if inspect.iscoroutine(body):
            body.close()  # it is never awaited
        raise InvalidRequest(
            f"reading the file object gives {type(body).__name__}, not bytes; open the file with 'rb'"
        )
    return bytes(body)


def is_file(image: object) -> bool:
    """Whether it is a file object, which can be read once only."""
    return hasattr(image, "read") and not isinstance(image, str | Path | bytes)


def is_reference(image: ImageSource) -> bool:
    """Whether the image is an s3:// place or a URL, which needs no upload."""
    return isinstance(image, str) and (image.startswith("s3://") or is_url(image))


def given_name(image: ImageSource) -> str:
    """The file name that the caller gave with an image to upload; '' if there is none."""
    if isinstance(image, NamedImage):
        return file_name(image.name)
    if isinstance(image, str | Path):
        return "" if is_reference(image) else file_name(str(image))
    name = getattr(image, "name", None)  # of an open file; '<stdin>' and a descriptor are none
    return file_name(name) if isinstance(name, str) and not name.startswith("<") else ""


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


def _file(path: Path) -> tuple[bytes, str]:
    try:
        with path.open("rb") as file:
            start = file.read(SIGNATURE_BYTES)
            _typed(start, str(path))  # before a large file is read
            return _typed(start + file.read(), str(path))
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror or error}") from error


def _typed(body: bytes, what: str) -> tuple[bytes, str]:
    media_type = media_type_of(body)
    if media_type:
        return body, media_type
    found = format_of(body)
    if not body:
        reason = f"{what} is empty; a file object is read from its position, so seek(0) first"
        reason = reason if what == "the file object" else f"{what} is empty"
    elif found:
        reason = f"{what} is {found}, which is not accepted; give {_ACCEPTED}"
    else:
        reason = f"{what} is not an image: its first bytes are not those of {_ACCEPTED}"
    refused = InvalidRequest(reason)
    refused.code = FailureCode.INVALID_IMAGE
    raise refused


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
