"""Reading the events of a fake deployment, alone or as a member of a group."""

from __future__ import annotations

from collections.abc import Sequence

from maskq.client.deployment import EventReader
from maskq.client.operations.flow import Deadline, Flow, Sleep
from maskq.contract import Event
from maskq.errors import InvalidRequest
from maskq.testing.service import LOOK_S, FakeService


class FakeReader(EventReader):
    """Reads every event for itself."""

    def __init__(self, service: FakeService, since: str | None) -> None:
        self._service = service
        self._since = since
        self._position = 0

    def open(self) -> Flow[None]:
        yield from ()
        self._position = self._service.ledger().stream.position(self._since)

    def read(self, left_s: float | None) -> Flow[Sequence[Event]]:
        deadline = Deadline(left_s)
        while True:
            found = self._service.ledger().stream.after(self._position)
            if found or deadline.is_over:
                return found
            yield Sleep(LOOK_S)

    def confirm(self, event: Event) -> Flow[None]:
        yield from ()
        self._position = self._service.ledger().stream.position(event.cursor)

    def close(self) -> Flow[None]:
        yield from ()


class FakeGroupReader(EventReader):
    """Shares events with the other readers of its group."""

    def __init__(
        self, service: FakeService, group: str, since: str | None, take_over_s: float
    ) -> None:
        if not group:
            raise InvalidRequest("group is empty; give the group a name")
        self._service = service
        self._group = group
        self._since = since
        self._take_over_s = take_over_s

    def open(self) -> Flow[None]:
        yield from ()
        ledger = self._service.ledger()
        with ledger.lock:
            ledger.stream.join(self._group, self._since)

    def read(self, left_s: float | None) -> Flow[Sequence[Event]]:
        deadline = Deadline(left_s)
        while True:
            ledger = self._service.ledger()
            with ledger.lock:
                event = ledger.stream.next_of(self._group, self._take_over_s)
            if event or deadline.is_over:
                return [event] if event else []
            yield Sleep(LOOK_S)

    def confirm(self, event: Event) -> Flow[None]:
        yield from ()
        ledger = self._service.ledger()
        with ledger.lock:
            ledger.stream.confirm(self._group, event)

    def close(self) -> Flow[None]:
        """Another reader takes over what this one did not confirm."""
        yield from ()
