"""HTTP/1.1 of the gateway, with limits so that a slow peer holds no connection or memory for long.

llhttp parses. It refuses requests that two servers could read differently: Transfer-Encoding together
with Content-Length, bare line feeds, folded headers, odd chunk sizes. Others are refused here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 10.0  # for a request line and its headers
BODY_S = 30.0  # for a body, and
BODY_BYTES_S = 2.0**18  # bytes of its Content-Length that add one more second
WRITE_S = 30.0  # for a response that the peer does not read
HEAD_BYTES = 64 * 2**10
MESSAGE_BYTES = 16 * 2**20  # head, body, chunk sizes and trailers; the application accepts less
MOST_CONNECTIONS = 512
_LINGER_S = 2.0  # for the peer to read the last response


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, message_bytes: int = MESSAGE_BYTES, **named: Any) -> None:
        """message_bytes: of a request, with its head, chunk sizes and trailers."""
        super().__init__(*args, **named)
        self._message_bytes = message_bytes
        self._received = 0  # bytes of the request that is being received
        self._in_head = True
        self._in_body = False
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self.waits_since = self.loop.time()

    # --- the connection -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS and not self._close_oldest_waiting():
            transport.abort()
            return
        self._must_end(HEAD_S, self._head_took_too_long)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        if self._writing:
            self._writing.cancel()
        super().connection_lost(exc)

    def _close_oldest_waiting(self) -> bool:
        """Close the connection that has waited longest for a request; False if there is none."""
        waiting = [
            one
            for one in self.connections
            if isinstance(one, LimitedProtocol) and one is not self and one.is_waiting
        ]
        if not waiting:
            return False
        min(waiting, key=lambda one: one.waits_since).transport.abort()
        return True

    @property
    def is_waiting(self) -> bool:
        """Whether no request is in progress: none is answered, and no headers are complete."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        return self._in_head and not is_answering

    # --- a request ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._reading is None and not self._in_body:  # the first bytes of a further request
            self._must_end(HEAD_S, self._head_took_too_long)
        self._received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head and self._received > HEAD_BYTES:
            self._refuse(431, "Request Header Fields Too Large")
        elif self._received > self._message_bytes:
            self._refuse(413, "Content Too Large")

    def on_message_begin(self) -> None:
        self._in_head, self._in_body = True, False
        if self._reading is None:
            self._must_end(HEAD_S, self._head_took_too_long)
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # a trailer follows the body and must not be taken for a header
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._check_framing()
        self._in_head, self._in_body = False, True
        declared = min(self._declared_bytes(), self._message_bytes)
        self._must_end(BODY_S + declared / BODY_BYTES_S, self._body_took_too_long)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._in_body = True, False
        self._received = 0
        self.waits_since = self.loop.time()
        if self.cycle.response_complete:  # it was answered before its body arrived
            self._must_end(HEAD_S, self._head_took_too_long)
        else:
            self._cancel()
        super().on_message_complete()

    def _declared_bytes(self) -> int:
        lengths = [value for name, value in self.headers if name == b"content-length"]
        return int(lengths[0]) if lengths and lengths[0].isdigit() else 0

    def _check_framing(self) -> None:
        """Raise ValueError for a request that another server may read differently."""
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise ValueError("HTTP version")
        named: dict[bytes, list[bytes]] = {}
        for name, value in self.headers:
            named.setdefault(name, []).append(value)
        encodings = named.get(b"transfer-encoding", [])
        if encodings and (
            version == "1.0"
            or [value.lower() for value in encodings] != [b"chunked"]
            or b"content-length" in named
        ):
            raise ValueError("Transfer-Encoding")
        if len(named.get(b"content-length", [])) > 1:
            raise ValueError("Content-Length")
        hosts = len(named.get(b"host", []))
        if hosts > 1 or (hosts == 0 and version != "1.0"):
            raise ValueError("Host")

    # --- time -----------------------------------------------------------------------------------------

    def _must_end(self, seconds: float, otherwise: Callable[[], None]) -> None:
        self._cancel()
        self._reading = self.loop.call_later(seconds, self._is_over, seconds, otherwise)

    def _cancel(self) -> None:
        if self._reading:
            self._reading.cancel()
            self._reading = None

    def _is_over(self, seconds: float, otherwise: Callable[[], None]) -> None:
        if self.flow.read_paused:  # the application is slow, not the peer
            self._must_end(seconds, otherwise)
        elif not self.transport.is_closing():
            otherwise()

    def _head_took_too_long(self) -> None:
        if not self._received:
            self.transport.abort()
        else:
            self._refuse(408, "Request Timeout")

    def _body_took_too_long(self) -> None:
        self._refuse(408, "Request Timeout")

    def _refuse(self, status: int, phrase: str) -> None:
        """Respond, unless a response has begun, and close the connection."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            head = f"HTTP/1.1 {status} {phrase}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            self.transport.write(head.encode())
        self.transport.close()
        self.loop.call_later(_LINGER_S, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self.loop.call_later(WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._writing:
            self._writing.cancel()
            self._writing = None
