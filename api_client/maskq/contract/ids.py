"""Ids: UUIDv7 (RFC 9562). They sort by time and cannot be guessed (74 random bits)."""

import secrets
import time
import uuid


def new_id() -> str:
    """A fresh id for a job or a batch, by this machine's clock to the millisecond."""
    value = (time.time_ns() // 1_000_000) << 80
    value |= 0x7 << 76 | secrets.randbits(12) << 64  # version, then random
    value |= 0b10 << 62 | secrets.randbits(62)  # variant, then random
    return str(uuid.UUID(int=value))


def new_token() -> str:
    """A claim's token: equality with it is the only proof of holding a job."""
    return secrets.token_urlsafe(12)
