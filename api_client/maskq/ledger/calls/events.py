"""Calls that read the event stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maskq.contract import Event
from maskq.ledger import keys
from maskq.ledger.calls.base import Argument, Call, scripted
from maskq.ledger.records import pairs


@dataclass(frozen=True, slots=True)
class StreamEnds:
    """Which events are kept. A cursor before `trimmed` has lost some."""

    last: str  # cursor of the last event ever written, '0-0' when there was none
    trimmed: str  # just before the first event kept, '0-0' when none was trimmed away


def stream_ends() -> Call[StreamEnds]:
    """The ends of the event stream."""
    return scripted("stream", lambda answer: StreamEnds(*answer))


def read_events(cursor: str, *, block_ms: int, count: int = 200) -> Call[list[Event]]:
    """Events after `cursor`, waiting up to `block_ms` for the first."""
    begin: tuple[Argument, ...] = ("XREAD", "COUNT", count)
    end = ("STREAMS", keys.events(), cursor)
    return Call(None, (*begin, "BLOCK", block_ms, *end), events_in, block_ms / 1000, (*begin, *end))


def read_event_texts(
    cursor: str, *, block_ms: int, count: int = 200
) -> Call[list[tuple[str, str]]]:
    """The same as JSON, each with its cursor."""
    call = read_events(cursor, block_ms=block_ms, count=count)
    return Call(call.script, call.args, texts_in, call.waits_s, call.at_once)


def events_in(answer: Any) -> list[Event]:
    """The events of an answer to XREAD or XREADGROUP."""
    return [
        Event.model_validate_json(text).model_copy(update={"cursor": cursor})
        for cursor, text in texts_in(answer)
    ]


def texts_in(answer: Any) -> list[tuple[str, str]]:
    """The events of such an answer as JSON, each with its cursor."""
    return [(entry_id, pairs(fields)["event"]) for entry_id, fields in entries_in(answer)]


def entries_in(answer: Any) -> list[tuple[str, Any]]:
    """Cursor and fields of each entry; the fields of a trimmed one are None."""
    streams = answer.values() if isinstance(answer, Mapping) else (s[1] for s in answer or ())
    return [entry for stream in streams for entry in _entries(stream)]


def _entries(stream: Any) -> list[tuple[str, Any]]:
    """Entries as (id, fields): redis-py nests them once more in a mapping."""
    if stream and isinstance(stream[0], list) and stream[0] and isinstance(stream[0][0], tuple):
        return [entry for part in stream for entry in part]
    return list(stream)
