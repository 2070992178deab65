"""Signatures of Standard Webhooks 1.0.0. Standard library only.

The exact bytes `{id}.{timestamp}.{body}` are signed with HMAC-SHA256; the header holds one
`v1,<base64>` per secret, space-separated, so that secrets can be changed while both are valid.
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

ID: Final = "webhook-id"  # the same for every attempt: receivers drop repeated ids
TIMESTAMP: Final = "webhook-timestamp"  # seconds since the epoch, of this attempt
SIGNATURE: Final = "webhook-signature"
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the standard's prefix, not a secret
MIN_SECRET_BYTES: Final = 24
_VERSION = "v1"


def decode_secret(secret: str) -> bytes:
    """The key of `whsec_<base64>`. Raises ValueError with a sentence; it never repeats the secret."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"a webhook secret begins with {SECRET_PREFIX!r}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"what follows {SECRET_PREFIX!r} is not base64") from None
    if len(key) < MIN_SECRET_BYTES:
        raise ValueError(
            f"a webhook secret has at least {MIN_SECRET_BYTES} bytes, this has {len(key)}; make one "
            f"with `maskq webhooks secret`"
        )
    return key


def sign(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of the signature header: one signature for each key, the newest first."""
    return " ".join(f"{_VERSION},{_digest(key, message_id, timestamp, body)}" for key in keys)


def is_signed_by(
    keys: Sequence[bytes], signatures: str, message_id: str, timestamp: int, body: bytes
) -> bool:
    """Whether any of the header's signatures is of any of the keys, in constant time for each."""
    expected = [_digest(key, message_id, timestamp, body).encode() for key in keys]
    given = [part[3:].encode() for part in signatures.split(" ") if part.startswith(f"{_VERSION},")]
    matches = [hmac.compare_digest(one, other) for one in expected for other in given]
    return any(matches)


def _digest(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
