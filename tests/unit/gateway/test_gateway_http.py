"""Raw bytes against the gateway's HTTP server: what is refused, and how long a slow peer is kept."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support.uvicorn_thread import running
from support.waiting import until

from maskq_gateway import http_limits
from maskq_gateway.server import config_of

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """Answers with the body's length and the headers it saw; notes every path."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            return await send({"type": "lifespan.shutdown.complete"})
        self.paths.append(scope["path"])
        size, more = 0, scope["path"] != "/early"
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        headers = [name.decode() for name, _ in scope["headers"]]
        body = json.dumps({"size": size, "headers": headers}).encode()
        if scope["path"] == "/large":
            body = b"x" * 50_000_000
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


class Server:
    def __init__(self, app: App, port: int) -> None:
        self.app, self.port = app, port

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, data: bytes) -> bytes:
        """All that is answered until the server closes, or one answer is whole."""
        with self.connect() as near:
            near.sendall(data)
            return answer(near)


def answer(near: socket.socket) -> bytes:
    received = b""
    while True:
        head, end, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            return received
        try:
            part = near.recv(65536)
        except ConnectionError:
            return received
        if not part:
            return received
        received += part


def closed_after(near: socket.socket) -> float:
    """Seconds until the server closes the connection."""
    began = time.monotonic()
    try:
        while near.recv(65536):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - began


@pytest.fixture
def server() -> Iterator[Server]:
    app = App()
    with socket.create_server(("127.0.0.1", 0)) as bound, running(config_of(app), bound):
        yield Server(app, bound.getsockname()[1])


GOOD = {
    "length": (HEAD + b"Content-Length: 3\r\n\r\nabc", 3),
    "chunks": (CHUNKED + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", 3),
    "chunk extension": (CHUNKED + b"1;a=b\r\na\r\n0\r\n\r\n", 1),
    "upper case": (HEAD + b"TRANSFER-ENCODING: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 1),
    "no host in 1.0": (b"POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\na", 1),
    "no body": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 0),
}


@pytest.mark.parametrize("case", GOOD)
def test_sound_requests_are_answered(server: Server, case: str) -> None:
    data, size = GOOD[case]
    answered = server.ask(data)
    assert answered.startswith(b"HTTP/1.1 200"), answered
    assert json.loads(answered.partition(b"\r\n\r\n")[2])["size"] == size


BAD = {
    "both": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "both, other order": HEAD
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "two equal lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": HEAD + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": HEAD + b"Content-Length: -3\r\n\r\nabc",
    "a hexadecimal length": HEAD + b"Content-Length: 0x3\r\n\r\nabc",
    "an empty length": HEAD + b"Content-Length: \r\n\r\nabc",
    "a huge length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "another encoding": HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "two encodings": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked first": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "encoding twice": HEAD
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "nearly chunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a tab before chunked": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "a signed chunk size": CHUNKED + b"+1\r\na\r\n0\r\n\r\n",
    "a negative chunk size": CHUNKED + b"-1\r\na\r\n0\r\n\r\n",
    "a chunk size after a space": CHUNKED + b" 1\r\na\r\n0\r\n\r\n",
    "a chunk size with an underscore": CHUNKED + b"1_0\r\naaaaaaaaaaaaaaaa\r\n0\r\n\r\n",
    "a huge chunk size": CHUNKED + b"fffffffffffffffff\r\na\r\n0\r\n\r\n",
    "an empty chunk size": CHUNKED + b"\r\na\r\n0\r\n\r\n",
    "a chunk that is longer": CHUNKED + b"1\r\nabc\r\n0\r\n\r\n",
    "a bare LF after a chunk size": CHUNKED + b"1\na\r\n0\r\n\r\n",
    "a bare LF after a chunk": CHUNKED + b"1\r\na\n0\r\n\r\n",
    "a bare LF in an extension": CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n",
    "a bare LF after a header": HEAD + b"A: b\nContent-Length: 0\r\n\r\n",
    "a bare LF after the request line": b"POST / HTTP/1.1\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "bare LFs": b"POST / HTTP/1.1\nHost: x\nContent-Length: 0\n\n",
    "a bare CR": HEAD + b"A: b\rContent-Length: 0\r\n\r\n",
    "a folded header": HEAD + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "a folded length": HEAD + b"Content-Length:\r\n 0\r\n\r\n",
    "a folded first header": b"POST / HTTP/1.1\r\n Host: x\r\nHost: y\r\n\r\n",
    "a space before the colon": HEAD + b"Content-Length : 0\r\n\r\n",
    "a NUL in a value": HEAD + b"A: b\x00c\r\nContent-Length: 0\r\n\r\n",
    "a NUL in a name": HEAD + b"A\x00: b\r\nContent-Length: 0\r\n\r\n",
    "no name": HEAD + b": b\r\nContent-Length: 0\r\n\r\n",
    "no colon": HEAD + b"Content-Length\r\n\r\n",
    "two hosts": HEAD + b"Host: y\r\nContent-Length: 0\r\n\r\n",
    "no host": b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0": b"POST / HTTP/2.0\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "a control character in the path": b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("case", BAD)
def test_what_another_server_may_read_differently_is_refused(server: Server, case: str) -> None:
    answered = server.ask(BAD[case])
    assert answered.startswith(b"HTTP/1.1 400"), answered
    assert b"connection: close" in answered.lower()
    assert "/smuggled" not in server.app.paths


def test_a_trailer_is_no_header(server: Server) -> None:
    answered = server.ask(CHUNKED + b"1\r\na\r\n0\r\nX-Api-Key: secret\r\nHost: y\r\n\r\n")
    assert json.loads(answered.partition(b"\r\n\r\n")[2])["headers"] == [
        "host",
        "transfer-encoding",
    ]


UNHURRIED_S = http_limits.HEAD_S - 1  # all limits of the real settings are longer


@pytest.fixture
def hurried(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in ("HEAD_S", "BODY_S", "WRITE_S"):
        monkeypatch.setattr(http_limits, name, 0.5)
    monkeypatch.setattr(http_limits, "_LINGER_S", 0.1)
    return server


DRIPS = {
    "nothing": (b"", b"", b""),
    "blank lines": (b"\r\n", b"\r\n", b"408"),
    "the request line": (b"GET /", b"a", b"408"),
    "a header": (HEAD + b"A: ", b"a", b"408"),
    "many headers": (HEAD, b"A: b\r\n", b"408"),
    "a body": (HEAD + b"Content-Length: 60000\r\n\r\n", b"a", b"408"),
    "a chunk size": (CHUNKED, b"0", b"408"),
    "a chunk extension": (CHUNKED + b"1;", b"a", b"408"),
    "trailers": (CHUNKED + b"0\r\n", b"A: b\r\n", b"408"),
    "a body that was answered early": (
        b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n",
        b"a",
        b"200",
    ),
    "a further request": (GOOD["no body"][0] + b"GET /", b"a", b"200"),
    "after an upgrade": (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"a",
        b"200",
    ),
}


@pytest.mark.parametrize("drip", DRIPS)
def test_a_peer_that_drips_is_cut_off(hurried: Server, drip: str) -> None:
    first, again, status = DRIPS[drip]
    with hurried.connect() as near:
        near.settimeout(0.1)
        near.sendall(first)
        began, received = time.monotonic(), b""
        while time.monotonic() - began < 20:
            try:
                if again:
                    near.sendall(again)
                part = near.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            if not part:
                break
            received += part
        assert time.monotonic() - began < UNHURRIED_S
    assert received.startswith(b"HTTP/1.1 " + status if status else b"")


def test_a_request_that_was_answered_before_its_body_came_leaves_no_connection(
    hurried: Server,
) -> None:
    with hurried.connect() as near:
        near.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
        assert answer(near)
        near.sendall(b"abc")
        assert closed_after(near) < UNHURRIED_S


def test_an_answer_that_nobody_reads_is_given_up(hurried: Server) -> None:
    with hurried.connect() as near:
        near.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert near.recv(1)
        time.sleep(1.0)  # in which nobody reads
        received, began = 1, time.monotonic()
        try:
            while part := near.recv(2**20):
                received += len(part)
        except ConnectionError:
            pass
        assert received < 50_000_000
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("data", "again", "status"),
    [
        (HEAD + b"A: ", b"a" * 65536, b"431"),
        (HEAD, b"A: b\r\n" * 10_000, b"431"),
        (b"GET /", b"a" * 65536, b"431"),
        (CHUNKED, b"10000\r\n" + b"a" * 65536 + b"\r\n", b"413"),
        (CHUNKED + b"0\r\n", b"A: b\r\n" * 10_000, b"413"),
    ],
    ids=["a header", "headers", "the request line", "a body", "trailers"],
)
def test_what_never_ends_is_not_kept(
    server: Server, data: bytes, again: bytes, status: bytes
) -> None:
    with server.connect() as near:
        near.sendall(data)
        sent = 0
        try:
            while sent < 64 * 2**20:
                near.sendall(again)
                sent += len(again)
        except ConnectionError:
            pass
        assert sent < 64 * 2**20


def test_past_the_cap_the_connection_that_waits_longest_makes_room(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "MOST_CONNECTIONS", 5)
    with ExitStack() as stack:
        idle = []
        for _ in range(20):
            near = stack.enter_context(server.connect())
            near.sendall(b"GET /")
            idle.append(near)
        assert server.ask(GOOD["length"][0]).startswith(b"HTTP/1.1 200")
        assert closed_after(idle[0]) < UNHURRIED_S
        idle[-1].sendall(b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(idle[-1]).startswith(b"HTTP/1.1 200")


def test_where_all_are_busy_a_further_connection_is_closed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "MOST_CONNECTIONS", 3)
    with ExitStack() as stack:
        for _ in range(3):
            near = stack.enter_context(server.connect())
            near.sendall(HEAD + b"Content-Length: 3\r\n\r\na")
        until(lambda: len(server.app.paths) >= 3, within_s=10)
        assert server.ask(GOOD["length"][0]) == b""
        near.sendall(b"bc")
        assert answer(near).startswith(b"HTTP/1.1 200")


def test_connections_are_kept_for_further_requests(server: Server) -> None:
    with server.connect() as near:
        for case in ("length", "chunks", "no body"):
            near.sendall(GOOD[case][0])
            assert answer(near).startswith(b"HTTP/1.1 200")
        near.sendall(GOOD["length"][0] * 2)  # pipelined
        received = b""
        while received.count(b"HTTP/1.1 200") < 2:
            received += near.recv(65536)
