"""Detects events that arrive out of order: Redis keeps the highest of S3's sequencers per object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

from maskq.ledger import keys
from maskq.ledger.calls import Call
from maskq.ledger.keys import Key
from maskq.ledger.scripts import Script

_LONGEST_S: Final = 100 * 366 * 86_400.0  # a century stands for 'never'

# At its memory limit Redis refuses this script, as it refuses the submission after it.
_TEXT: Final = """#!lua
local name, given, keep_ms = ARGV[2], ARGV[3], ARGV[4]
local highest = redis.call('GET', name) or ''
local longest = math.max(#highest, #given)
local function padded(value) return value .. string.rep('0', longest - #value) end
if padded(given) < padded(highest) then return 0 end
redis.call('SET', name, given, 'PX', keep_ms)
return 1
"""
_ADVANCE: Final = Script(
    "trigger", _TEXT, hashlib.sha1(_TEXT.encode(), usedforsecurity=False).hexdigest()
)


def advance(*, subject: Sequence[str], sequencer: str, keep_s: float) -> Call[bool]:
    """Note an event of `subject`. Returns False if an event with a higher sequencer came before.

    The shorter of two sequencers is padded with zeros on its right, as AWS describes. An equal one is
    not stale: it is the same event, whose job may not be submitted yet. Expires after `keep_s` seconds.
    """
    keep_ms = round(min(keep_s, _LONGEST_S) * 1000)
    args = (key_of(subject), sequencer.upper(), keep_ms)
    return Call(_ADVANCE, args, _is_one)


def key_of(subject: Sequence[str]) -> Key:
    """The key that holds a subject's highest sequencer."""
    digest = hashlib.sha256(json.dumps(list(subject)).encode()).hexdigest()
    return keys.trigger(digest)


def _is_one(answer: Any) -> bool:
    return int(answer) == 1
