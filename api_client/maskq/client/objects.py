"""The caller's side of the object store: upload inputs, read results."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskq import s3
from maskq.contract.places import S3Place
from maskq.errors import InvalidRequest, StoreUnavailable
from maskq.per_process import PerProcess, no_fork

if TYPE_CHECKING:
    import PIL.Image


class Objects:
    """Connects at the first use in each process; safe to share between threads."""

    def __init__(self, endpoint_url: str | None) -> None:
        self._endpoint_url = endpoint_url
        self._client: PerProcess[Any] = PerProcess(self._connect)

    def put(self, place: S3Place, body: bytes, content_type: str) -> None:
        with _typed_errors(place):
            self._client.get().put_object(
                Bucket=place.bucket, Key=place.key, Body=body, ContentType=content_type
            )

    def get(self, place: S3Place) -> bytes:
        with _typed_errors(place):
            answer = self._client.get().get_object(Bucket=place.bucket, Key=place.key)
            return bytes(answer["Body"].read())

    def delete(self, place: S3Place) -> None:
        with _typed_errors(place):
            self._client.get().delete_object(Bucket=place.bucket, Key=place.key)

    def copy(self, source: S3Place, place: S3Place) -> None:
        """Within the store: the bytes do not pass through here."""
        with _typed_errors(source):
            self._client.get().copy_object(
                Bucket=place.bucket,
                Key=place.key,
                CopySource={"Bucket": source.bucket, "Key": source.key},
            )

    def delete_under(self, place: S3Place) -> None:
        """Every object whose key begins with the place and a slash."""
        with _typed_errors(place):
            s3.delete_under(self._client.get(), place)

    def close(self) -> None:
        """Give the connections back; who uses it again connects again."""
        if client := self._client.take():
            client.close()

    def _connect(self) -> Any:
        with no_fork():
            return s3.connect(self._endpoint_url)


@contextmanager
def _typed_errors(place: S3Place) -> Iterator[None]:
    with no_fork():  # the first time it takes a third of a second
        import boto3  # noqa: F401
    try:
        with s3.typed_errors(place):
            yield
    except s3.StoreError as error:
        raised = StoreUnavailable(str(error))
        raised.code = error.code
        raise raised from error


_TYPES = {
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp",
    ".tif": "image/tiff", ".tiff": "image/tiff", ".bmp": "image/bmp", ".gif": "image/gif",
    ".avif": "image/avif",
}  # fmt: skip


def read_image(image: str | Path | bytes | PIL.Image.Image) -> tuple[bytes, str]:
    """The bytes to upload and their content type. Raises InvalidRequest for what is no image source."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image), "application/octet-stream"
    if isinstance(image, str | Path):
        path = Path(image)
        try:
            return path.read_bytes(), _TYPES.get(path.suffix.lower(), "application/octet-stream")
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
