"""`python -m maskq.s3.bucket`: wait for the object store, then create MASKQ_S3_BUCKET if missing."""

from __future__ import annotations

import sys
import time
from typing import Any

from maskq import s3
from maskq.contract.failures import FailureCode
from maskq.errors import MaskqError
from maskq.settings import Settings

_TIMEOUT_S = 60.0


def ensure(settings: Settings, *, timeout_s: float = _TIMEOUT_S) -> None:
    """Create the bucket if missing. Waits `timeout_s` seconds for the store. Raises StoreError."""
    client, bucket = _connect(settings), settings.s3_bucket
    end = time.monotonic() + timeout_s
    while True:
        try:
            _make(client, bucket)
            return
        except s3.StoreError as error:
            if error.code is not FailureCode.STORE_UNAVAILABLE or time.monotonic() > end:
                raise
            time.sleep(0.5)


def _connect(settings: Settings) -> Any:
    return s3.connect(settings.s3_endpoint_url, addressing=settings.s3_addressing)


def _make(client: Any, bucket: str) -> None:
    try:
        with s3.typed_errors(f"bucket {bucket}"):
            client.head_bucket(Bucket=bucket)
    except s3.StoreError as error:
        if error.code is not FailureCode.NOT_FOUND:
            raise
        with s3.typed_errors(f"bucket {bucket}"):
            client.create_bucket(Bucket=bucket)


if __name__ == "__main__":
    try:
        settings = Settings.load()
        ensure(settings)
    except (MaskqError, s3.StoreError) as error:
        sys.exit(f"maskq: {error}")
