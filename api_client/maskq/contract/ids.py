"""Ids: UUIDv7 (RFC 9562). They sort by time and cannot be guessed (74 random bits)."""

import re
import secrets
import time
import uuid
from typing import Final

OWN_ID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # of a UUID, as Celery's ids are, too
TOKEN: Final = "[A-Za-z0-9_-]{16}"  # noqa: S105 - a pattern
_OWN_ID = re.compile(OWN_ID, re.ASCII)


def new_id() -> str:
    """A fresh id for a job or a batch, by this machine's clock to the millisecond."""
    value = (time.time_ns() // 1_000_000) << 80
    value |= 0x7 << 76 | secrets.randbits(12) << 64  # version, then random
    value |= 0b10 << 62 | secrets.randbits(62)  # variant, then random
    return str(uuid.UUID(int=value))


def is_own_id(text: str) -> bool:
    """Whether it has the form of a job id: a UUID in lower case. Any other name is an alias."""
    return _OWN_ID.fullmatch(text) is not None


def new_token() -> str:
    """A claim's token: equality with it is the only proof of holding a job."""
    return secrets.token_urlsafe(12)
