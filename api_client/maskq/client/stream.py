"""Reading the stream of events: where to begin, what to pass on, how long to wait."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from maskq.client.flow import Flow
from maskq.contract import Event
from maskq.errors import EventsLost, InvalidRequest
from maskq.ledger import calls

_BLOCK_S = 2.0  # below the socket's timeout


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events a reader asked for; None: any."""

    types: frozenset[str] | None
    job_ids: frozenset[str] | None

    @classmethod
    def of(cls, types: Iterable[str] | None, job_ids: Iterable[str] | None) -> Wanted:
        """From what a caller gives. Raises InvalidRequest for a bare string."""
        return cls(_full_names(_set_of(types)), _set_of(job_ids))

    def passes(self, event: Event) -> bool:
        """Whether it is one of them."""
        return (self.types is None or event.type in self.types) and (
            self.job_ids is None or event.subject in self.job_ids
        )


def _set_of(given: Iterable[str] | None) -> frozenset[str] | None:
    if isinstance(given, str):
        raise InvalidRequest(f"{given!r} is one string; give a list of them")
    return None if given is None else frozenset(given)


def _full_names(types: frozenset[str] | None) -> frozenset[str] | None:
    return types and frozenset(f"maskq.{name.removeprefix('maskq.')}" for name in types)


def start(prefix: str, since: str | None) -> Flow[str]:
    """Where to start reading. Raises EventsLost where the cursor cannot be honoured."""
    ends: calls.StreamEnds = yield calls.stream_ends(prefix)
    if since is None:
        return ends.last
    if since == "0":
        return since
    try:
        at, trimmed, last = _order(since), _order(ends.trimmed), _order(ends.last)
    except ValueError:
        raise InvalidRequest(f"{since!r} is no cursor; take one from an event") from None
    if at < trimmed:
        raise EventsLost(
            f"events after {since} were trimmed away; list(ended_since=…) what ended to catch up"
        )
    if at > last:
        raise EventsLost(f"{since} lies ahead of the stream, whose last event is {ends.last}")
    return since


def read(prefix: str, cursor: str, left_s: float) -> Flow[Sequence[Event]]:
    """What comes after the cursor; waits a moment, at most `left_s`, for the first."""
    block_ms = max(1, int(min(_BLOCK_S, left_s) * 1000))
    events: Sequence[Event] = yield calls.read_events(prefix, cursor, block_ms=block_ms)
    return events


def left_s_of(last: float, idle: float | None) -> float:
    """Seconds that may still pass without an event, since `last` by time.monotonic()."""
    return _BLOCK_S if idle is None else last + idle - time.monotonic()


def _order(cursor: str) -> tuple[int, int]:
    milliseconds, _, sequence = cursor.partition("-")
    return int(milliseconds), int(sequence or 0)
