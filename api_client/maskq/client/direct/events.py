"""Reading the event stream in Redis, alone or as a member of a group of readers."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence

from maskq.client.events import BLOCK_S
from maskq.client.operations.flow import Flow, Pipeline
from maskq.contract import Event
from maskq.contract.ids import new_token
from maskq.errors import EventsLost, InvalidRequest
from maskq.ledger import calls
from maskq.ledger.calls import groups


class Reader:
    """Reads every event for itself."""

    def __init__(self, since: str | None) -> None:
        self._since = since
        self._cursor = ""

    def open(self) -> Flow[None]:
        """Find the position to start at. Raises EventsLost if the cursor is not in the stream."""
        ends: calls.StreamEnds = yield calls.stream_ends()
        self._cursor = _start(self._since, ends)

    def read(self, left_s: float | None) -> Flow[Sequence[Event]]:
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

    def read(self, left_s: float | None) -> Flow[Sequence[Event]]:
        """One event: one that another reader did not confirm in time, or the next new one."""
        now = time.monotonic()
        if now - self._looked > min(self._take_over_s, BLOCK_S):
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


def _block_ms(left_s: float | None) -> int:
    return max(1, int(min(BLOCK_S, BLOCK_S if left_s is None else left_s) * 1000))


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
