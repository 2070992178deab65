"""Reading events from the gateway's event stream."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Final

from maskq.client.events import EventFilter
from maskq.client.http import documents
from maskq.client.http.asking import Gateway
from maskq.client.operations.flow import Flow, Sleep
from maskq.contract import Event
from maskq.contract.ids import new_token
from maskq.errors import EventsLost, InvalidRequest, StoreUnavailable
from maskq.http.problems import error_of
from maskq.http.request import Answer, CloseStream, Message, OpenStream, ReadStream, Request

_SILENCE_S: Final = 40.0  # the gateway sends a heartbeat every 15 s
_MOST_IN_QUERY: Final = 50  # jobs and types; a longer filter is applied here
_LOST: Final = "maskq.events.lost"
_TRIES: Final = 5
_PAUSE_S: Final = 0.5
_SLACK_S: Final = 0.5


class HttpReader:
    """Reads events by itself, or as a member of a group. It reconnects where it left off."""

    def __init__(
        self,
        gateway: Gateway,
        wanted: EventFilter,
        since: str | None,
        group: str | None,
        take_over_s: float,
    ) -> None:
        if group == "":
            raise InvalidRequest("group is empty; give the group a name")
        self._gateway = gateway
        self._cursor = since
        self._group = group
        self._stream: object | None = None
        self._silence_s = _SILENCE_S
        names = [("job", name) for name in sorted(wanted.job_ids or ())]
        names += [("type", name) for name in sorted(wanted.types or ())]
        self._query = names if len(names) <= _MOST_IN_QUERY else []
        if group:
            # One event at a time: asking for the next one confirms the last.
            self._query += [
                ("group", group),
                ("consumer", f"{socket.gethostname()}:{os.getpid()}:{new_token()}"),
                ("max_unconfirmed", "1"),
                ("take_over", f"{take_over_s:g}"),
            ]
            self._query += [("since", since)] if since is not None else []

    def open(self) -> Flow[None]:
        yield from self._connected(_SILENCE_S)

    def read(self, left_s: float | None) -> Flow[Sequence[Event]]:
        """The next events; none at a heartbeat."""
        silence_s = _SILENCE_S if left_s is None else min(left_s, _SILENCE_S)
        if self._stream is None or self._silence_s > silence_s + _SLACK_S:
            yield from self._connected(silence_s)
        messages: list[Message] | None = yield ReadStream(self._stream)
        if messages is None:
            yield from self.close()
            return []
        events = []
        for message in messages:
            if message.event == _LOST:
                raise EventsLost(message.data)
            if message.event:
                events.append(self._event(message))
            elif message.id:
                self._cursor = message.id
        return events

    def confirm(self, event: Event) -> Flow[None]:
        self._cursor = event.cursor
        if self._group:
            document = {"group": self._group, "cursors": [event.cursor]}
            yield from self._gateway.ask(
                Request(method="POST", path="/v1/events/confirm", document=document)
            )

    def close(self) -> Flow[None]:
        stream, self._stream = self._stream, None
        if stream is not None:
            yield CloseStream(stream)

    def _event(self, message: Message) -> Event:
        try:
            return documents.event(message)
        except ValueError:
            raise StoreUnavailable(
                f"{self._gateway.address.url} sent an event that this client does not know; their "
                f"versions are too far apart"
            ) from None

    def _connected(self, silence_s: float) -> Flow[None]:
        """Connect, again where the last stream ended. Raises EventsLost, StoreUnavailable."""
        yield from self.close()
        keep = self._cursor is not None and not self._group
        since = {"Last-Event-ID": str(self._cursor)} if keep else {}
        request = OpenStream(
            path="/v1/events", query=self._query, headers=since, silence_s=max(0.05, silence_s)
        )
        for tries in range(1, _TRIES + 1):
            error: Exception
            try:
                opened = yield request
            except StoreUnavailable as unreachable:
                error = unreachable
            else:
                if not isinstance(opened, Answer):
                    self._stream, self._silence_s = opened, silence_s
                    return
                error = error_of(opened, self._gateway.address)
                if opened.status not in (429, 502, 503, 504):
                    raise error
            if tries == _TRIES:
                raise error
            yield Sleep(_PAUSE_S * tries)
