"""Reading the stream of events: where to begin, what to pass on, alone or shared with others."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from maskq.client.operations.flow import Flow, Pipeline
from maskq.contract import Event
from maskq.contract.events import EVENT_DATA
from maskq.contract.ids import is_own_id, new_token
from maskq.errors import EventsLost, InvalidRequest
from maskq.ledger import calls
from maskq.ledger.calls import groups

_BLOCK_S = 2.0  # below the socket's timeout
TAKE_OVER_S = 60.0


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a reader asked for; None: any."""

    types: frozenset[str] | None
    job_ids: frozenset[str] | None

    @classmethod
    def of(cls, types: Iterable[str] | None, job_ids: Iterable[str] | None) -> EventFilter:
        """From what a caller gives. Raises InvalidRequest for a bare string or a type that is none."""
        return cls(_full_names(_set_of(types)), _set_of(job_ids))

    def resolved(self) -> Flow[EventFilter]:
        """The same, with the ids of jobs in place of their aliases."""
        aliases = [name for name in self.job_ids or () if not is_own_id(name)]
        if not aliases:
            return self
        records = yield Pipeline([calls.get(alias) for alias in aliases])
        found = {record.id for record in records if record}
        return replace(self, job_ids=(self.job_ids or frozenset()) | found)

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
    names = types and frozenset(f"maskq.{name.removeprefix('maskq.')}" for name in types)
    if unknown := sorted((names or frozenset()) - EVENT_DATA.keys()):
        raise InvalidRequest(
            f"there is no event {unknown[0].removeprefix('maskq.')}; there are "
            + ", ".join(name.removeprefix("maskq.") for name in EVENT_DATA)
        )
    return names


class Reader:
    """Every event, for this reader alone."""

    def __init__(self, since: str | None) -> None:
        self._since = since
        self._cursor = ""

    def open(self) -> Flow[None]:
        """Find where to start. Raises EventsLost where the cursor cannot be honoured."""
        ends: calls.StreamEnds = yield calls.stream_ends()
        self._cursor = _start(self._since, ends)

    def read(self, left_s: float) -> Flow[Sequence[Event]]:
        """What comes next; waits a moment, at most `left_s`, for the first."""
        call = calls.read_events(self._cursor, block_ms=_block_ms(left_s))
        events: Sequence[Event]
        ends: calls.StreamEnds
        events, ends = yield Pipeline([call, calls.stream_ends()])
        if self._cursor != "0" and _order(self._cursor) < _order(ends.trimmed):
            raise EventsLost(_trimmed(self._cursor))
        return events

    def confirm(self, event: Event) -> Flow[None]:
        """It was passed on: what comes next comes after it."""
        self._cursor = event.cursor
        yield from ()

    def close(self) -> Flow[None]:
        """Nothing is kept for a reader of its own."""
        yield from ()


class GroupReader:
    """Events shared with whoever reads under the same group's name."""

    def __init__(self, group: str, since: str | None, take_over: float) -> None:
        if not group:
            raise InvalidRequest("a group of readers has a name")
        name = f"{socket.gethostname()}:{os.getpid()}:{new_token()}"
        self._member = groups.Member(group, name)
        self._since = since or ""
        self._take_over_s = take_over
        self._looked = 0.0  # for what others left, by time.monotonic()

    def open(self) -> Flow[None]:
        """Join. Raises EventsLost once for what was trimmed away before the group had read it."""
        if self._since not in ("", "0"):
            _order(self._since)
        lost = yield groups.join(self._member, self._since)
        if lost:
            raise EventsLost(f"{_trimmed(lost)}; group {self._member.group!r} goes on after them")

    def read(self, left_s: float) -> Flow[Sequence[Event]]:
        """One event: what another reader left unconfirmed, or the next that nobody has had."""
        now = time.monotonic()
        if now - self._looked > min(self._take_over_s, _BLOCK_S):
            taken: groups.TakenOver
            taken = yield groups.take_over(self._member, int(self._take_over_s * 1000))
            if taken.lost:
                raise EventsLost(
                    f"{taken.lost} events were trimmed away before a reader of group "
                    f"{self._member.group!r} confirmed them; list(ended_since=…) what ended"
                )
            if taken.events:
                return taken.events
            self._looked = now
        events: Sequence[Event] = yield groups.read(self._member, block_ms=_block_ms(left_s))
        return events

    def confirm(self, event: Event) -> Flow[None]:
        """It is done with, for the whole group."""
        yield groups.confirm(self._member, event)

    def close(self) -> Flow[None]:
        """Leave; what was not confirmed, another reader takes over."""
        yield groups.leave(self._member)


def reader(since: str | None, group: str | None, take_over: float) -> Reader | GroupReader:
    """Of its own, or as a member of a group."""
    if group is None:
        return Reader(since)
    return GroupReader(group, since, take_over)


def _start(since: str | None, ends: calls.StreamEnds) -> str:
    if since is None:
        return ends.last
    if since == "0":
        return since
    at = _order(since)
    if at < _order(ends.trimmed):
        raise EventsLost(_trimmed(since))
    if at > _order(ends.last):
        raise EventsLost(f"{since} lies ahead of the stream, whose last event is {ends.last}")
    return since


def left_s_of(last: float, idle: float | None) -> float:
    """Seconds that may still pass without an event, since `last` by time.monotonic()."""
    return _BLOCK_S if idle is None else last + idle - time.monotonic()


def _block_ms(left_s: float) -> int:
    return max(1, int(min(_BLOCK_S, left_s) * 1000))


def _trimmed(cursor: str) -> str:
    return f"events after {cursor} were trimmed away; list(ended_since=…) what ended to catch up"


def _order(cursor: str) -> tuple[int, int]:
    milliseconds, _, sequence = cursor.partition("-")
    try:
        return int(milliseconds), int(sequence or 0)
    except ValueError:
        raise InvalidRequest(f"{cursor!r} is no cursor; take one from an event") from None
