"""Reading the event stream, alone or as a member of a group of readers."""

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
    """The event types and jobs that a reader wants; None: all."""

    types: frozenset[str] | None
    job_ids: frozenset[str] | None

    @classmethod
    def of(cls, types: Iterable[str] | None, job_ids: Iterable[str] | None) -> EventFilter:
        """The filter a caller describes. Raises InvalidRequest for a bare string or unknown type."""
        return cls(_full_names(_set_of(types)), _set_of(job_ids))

    def resolved(self) -> Flow[EventFilter]:
        """This filter with aliases of jobs resolved to their ids."""
        aliases = [name for name in self.job_ids or () if not is_own_id(name)]
        if not aliases:
            return self
        records = yield Pipeline([calls.get(alias) for alias in aliases])
        found = {record.id for record in records if record}
        return replace(self, job_ids=(self.job_ids or frozenset()) | found)

    def passes(self, event: Event) -> bool:
        """Whether the reader wants this event."""
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
            f"{unknown[0].removeprefix('maskq.')!r} is not a valid event type; valid are: "
            + ", ".join(name.removeprefix("maskq.") for name in EVENT_DATA)
        )
    return names


class Reader:
    """Reads every event for itself."""

    def __init__(self, since: str | None) -> None:
        self._since = since
        self._cursor = ""

    def open(self) -> Flow[None]:
        """Find the position to start at. Raises EventsLost if the cursor is not in the stream."""
        ends: calls.StreamEnds = yield calls.stream_ends()
        self._cursor = _start(self._since, ends)

    def read(self, left_s: float) -> Flow[Sequence[Event]]:
        """The next events; waits at most `left_s` seconds for the first."""
        call = calls.read_events(self._cursor, block_ms=_block_ms(left_s))
        events: Sequence[Event]
        ends: calls.StreamEnds
        events, ends = yield Pipeline([call, calls.stream_ends()])
        if self._cursor != "0" and _order(self._cursor) < _order(ends.trimmed):
            raise EventsLost(_trimmed(self._cursor))
        return events

    def confirm(self, event: Event) -> Flow[None]:
        """The caller has the event: continue after it."""
        self._cursor = event.cursor
        yield from ()

    def close(self) -> Flow[None]:
        """Nothing to do: Redis stores nothing for this reader."""
        yield from ()


class GroupReader:
    """Shares events with the other readers of its group."""

    def __init__(self, group: str, since: str | None, take_over: float) -> None:
        if not group:
            raise InvalidRequest("group is empty; give the group a name")
        name = f"{socket.gethostname()}:{os.getpid()}:{new_token()}"
        self._member = groups.Member(group, name)
        self._since = since or ""
        self._take_over_s = take_over
        self._looked = 0.0  # when it last checked for unconfirmed events, by time.monotonic()

    def open(self) -> Flow[None]:
        """Join the group. Raises EventsLost once if events were trimmed before the group read them."""
        if self._since not in ("", "0"):
            _order(self._since)
        lost = yield groups.join(self._member, self._since)
        if lost:
            raise EventsLost(f"{_trimmed(lost)}; group {self._member.group!r} continues after them")

    def read(self, left_s: float) -> Flow[Sequence[Event]]:
        """One event: one that another reader did not confirm in time, or the next new one."""
        now = time.monotonic()
        if now - self._looked > min(self._take_over_s, _BLOCK_S):
            taken: groups.TakenOver
            taken = yield groups.take_over(self._member, int(self._take_over_s * 1000))
            if taken.lost:
                raise EventsLost(
                    f"{taken.lost} events were trimmed before a reader of group {self._member.group!r} "
                    f"confirmed them; list(ended_since=…) finds the jobs that ended"
                )
            if taken.events:
                return taken.events
            self._looked = now
        events: Sequence[Event] = yield groups.read(self._member, block_ms=_block_ms(left_s))
        return events

    def confirm(self, event: Event) -> Flow[None]:
        """Confirm the event for the whole group."""
        yield groups.confirm(self._member, event)

    def close(self) -> Flow[None]:
        """Leave the group; another reader takes over unconfirmed events."""
        yield groups.leave(self._member)


def reader(since: str | None, group: str | None, take_over: float) -> Reader | GroupReader:
    """A reader by itself, or as a member of `group`."""
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
    """Seconds left until `idle` seconds have passed since the last event (`last`, time.monotonic())."""
    return _BLOCK_S if idle is None else last + idle - time.monotonic()


def _block_ms(left_s: float) -> int:
    return max(1, int(min(_BLOCK_S, left_s) * 1000))


def _trimmed(cursor: str) -> str:
    return f"events after {cursor} were trimmed; list(ended_since=…) finds the jobs that ended"


def _order(cursor: str) -> tuple[int, int]:
    milliseconds, _, sequence = cursor.partition("-")
    try:
        return int(milliseconds), int(sequence or 0)
    except ValueError:
        raise InvalidRequest(
            f"{cursor!r} is not a valid cursor; use the cursor of an event"
        ) from None
