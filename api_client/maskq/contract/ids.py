"""Ids: UUIDv7 (RFC 9562). They sort in the order of their making and cannot be guessed."""

import re
import secrets
import threading
import time
import uuid
from typing import Final

OWN_ID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # of a UUID, as Celery's ids are, too
TOKEN: Final = "[A-Za-z0-9_-]{16}"  # noqa: S105 - a pattern
_OWN_ID = re.compile(OWN_ID, re.ASCII)
_TICKS = 4096  # in a millisecond


class _LastTick(threading.local):
    """When this thread made its last id. No lock: a fork cannot copy one that is held."""

    tick = 0


_last = _LastTick()


def new_id() -> str:
    """A fresh id for a job or a batch, by this machine's clock to a 4,096th of a millisecond.

    A thread's ids ascend, even if its clock is set back. So jobs that Redis accepts in the same
    millisecond run in the order of submission. 62 bits are random.
    """
    _last.tick = max(time.time_ns() * _TICKS // 1_000_000, _last.tick + 1)
    milliseconds, fraction = divmod(_last.tick, _TICKS)
    value = milliseconds << 80
    value |= 0x7 << 76 | fraction << 64  # version, then RFC 9562's method 3: more of the time
    value |= 0b10 << 62 | secrets.randbits(62)  # variant, then random
    return str(uuid.UUID(int=value))


def is_own_id(text: str) -> bool:
    """Whether it has the form of a job id: a UUID in lower case. Any other name is an alias."""
    return _OWN_ID.fullmatch(text) is not None


def new_token() -> str:
    """A claim's token: equality with it is the only proof of holding a job."""
    return secrets.token_urlsafe(12)
