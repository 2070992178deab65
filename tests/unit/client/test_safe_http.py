"""Which URLs of a caller's are called, and that nothing else ever is."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.waiting import until

from maskq import safe_http
from maskq.safe_http import Refused, TooLong, Unreachable, addresses, is_public, post, request

check = partial(safe_http.check, setting="MASKQ_WEBHOOK_ALLOWED_HOSTS")

NASTY = [
    "http://example.com/",
    "https://localhost/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://0x7f000001/",
    "https://2130706433/",
    "https://0/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[::7f00:1]/",
    "https://169.254.169.254/latest/meta-data/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://192.0.0.8/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[fe80::1]/",
    "https://[fc00::1]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[64:ff9b:1::1]/",
    "https://[2002:0a00:1::]/",
    "https://[2001:0:53aa:64c:0:0:f5ff:fffe]/",
    "https://1.1.1.1:22/",
    "https://1.1.1.1:6379/",
    "https://user:secret@1.1.1.1/",
    "https:///nowhere",
    "https://1.1.1.1:port/",
    "ftp://1.1.1.1/",
    "file:///etc/passwd",
    "gopher://1.1.1.1/",
    "",
    # Some of these urlsplit drops without a word.
    "https://1.1.1.1/a\nb",
    "https://1.1.1.1/a\r\nX: y",
    "https://1.1.1\t.1/",
    " https://1.1.1.1/",
    "https://1.1.1.1/a b",
    "https://1.1.1.1/\x00",
    "https://1.1.1.1\\@10.0.0.1/",
    "https://1.1.1.1/\x7f",
    "https://1.1.1.1/\x85",
]


@pytest.mark.parametrize("url", NASTY)
def test_nasty_urls_are_refused(url: str) -> None:
    with pytest.raises(Refused):
        check(url)


@pytest.mark.parametrize("url", ["https://1.1.1.1/x?y=1", "https://[2606:4700::1111]:8443/"])
def test_public_addresses_may_be_called(url: str) -> None:
    assert check(url).scheme == "https"


def test_an_address_may_hide_another() -> None:
    """Every way in which an IPv4 address can be written into an IPv6 one, public and private."""
    for inner, public in (("8.8.8.8", True), ("10.0.0.1", False), ("169.254.169.254", False)):
        number = int(ipaddress.IPv4Address(inner))
        for outer in (
            ipaddress.IPv6Address((0xFFFF << 32) | number),
            ipaddress.IPv6Address((0x64FF9B << 96) | number),
            ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1),
        ):
            assert is_public(outer) is public, outer


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers), b""))  # type: ignore[attr-defined]
        self.send_response(200)
        sent, said = {"/whole": (1000, 1000), "/short": (10, 1000), "/silent": (1000, None)}[
            self.path
        ]
        if said:
            self.send_header("Content-Length", str(said))
        self.end_headers()
        self.wfile.write(b"x" * sent)
        self.close_connection = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))  # type: ignore[attr-defined]
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x" * 65536)
            return
        if self.path == "/hangup":
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.requests = []
    server.handle_error = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url_of(receiver: Any, path: str = "/", host: str = "127.0.0.1") -> str:
    return f"http://{host}:{receiver.server_address[1]}{path}"


def test_a_private_receiver_that_is_meant_is_called(receiver: Any) -> None:
    target = check(url_of(receiver, "/hook?a=1", host="localhost"), ["localhost"])
    answer = post(target, b"body", {"Webhook-Id": "1"})
    assert (answer.status, answer.body) == (200, b"ok")
    path, headers, body = receiver.requests[0]
    assert (path, body, headers["Webhook-Id"]) == ("/hook?a=1", b"body", "1")
    assert headers["Host"] == f"localhost:{receiver.server_address[1]}"


def test_one_port_of_a_host_can_be_meant(receiver: Any) -> None:
    port = receiver.server_address[1]
    assert check(url_of(receiver), [f"127.0.0.1:{port}"]).port == port
    with pytest.raises(Refused):
        check(url_of(receiver), [f"127.0.0.1:{port + 1}"])


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://127.0.0.1/hook", "127.0.0.1:443"),
        ("http://127.0.0.1/hook", "127.0.0.1:80"),
        ("https://LOCALHOST:9000/hook", "LocalHost:9000"),
    ],
)
def test_a_host_is_meant_however_it_is_written(url: str, allowed: str) -> None:
    assert [str(one) for one in check(url, [allowed]).addresses][-1] == "127.0.0.1"


def test_a_redirect_is_an_answer_and_not_followed(receiver: Any) -> None:
    answer = post(check(url_of(receiver, "/elsewhere"), ["127.0.0.1"]), b"", {})
    assert answer.status == 302
    assert [path for path, *_ in receiver.requests] == ["/elsewhere"]


def test_an_endless_answer_is_read_to_its_limit(receiver: Any) -> None:
    answer = post(check(url_of(receiver, "/endless"), ["127.0.0.1"]), b"", {})
    assert len(answer.body) == 64 * 1024


@pytest.mark.parametrize("path", ["/whole", "/silent"])
def test_an_object_is_read_whole_or_not_at_all(receiver: Any, path: str) -> None:
    target = check(url_of(receiver, path), ["127.0.0.1"])
    assert len(request.get(target, max_bytes=1000, total_s=5).body) == 1000
    with pytest.raises(TooLong) as long:
        request.get(target, max_bytes=999, total_s=5)
    assert long.value.size == (1000 if path == "/whole" else None)


def test_an_object_that_breaks_off_is_told(receiver: Any) -> None:
    target = check(url_of(receiver, "/short"), ["127.0.0.1"])
    with pytest.raises(Unreachable):
        request.get(target, max_bytes=1000, total_s=5)


def test_who_hangs_up_or_is_not_there_is_unreachable(receiver: Any) -> None:
    with pytest.raises(Unreachable):
        post(check(url_of(receiver, "/hangup"), ["127.0.0.1"]), b"", {})
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unreachable, match="refused"):
        post(check(f"http://127.0.0.1:{port}/", ["127.0.0.1"]), b"", {})
    with pytest.raises(Unreachable, match=r"nobody\.invalid"):
        check("https://nobody.invalid/")


def test_a_name_that_changes_its_address_is_not_asked_twice(
    receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public while it is checked, private when it is called."""
    answers = iter(["192.0.2.1", "127.0.0.1"])
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, *rest: Any, **named: Any) -> Any:
        if host == "rebind.example":
            asked.append(host)
            return real(next(answers), *rest, **named)
        return real(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    # An address for documentation: to be taken for public here, and nobody answers at it.
    monkeypatch.setattr("maskq.safe_http.target.is_public", lambda one: str(one) == "192.0.2.1")
    monkeypatch.setattr(request, "_CONNECT_S", 0.2)
    port = receiver.server_address[1]
    monkeypatch.setattr("maskq.safe_http.target._PORTS", (port,))
    target = check(f"https://rebind.example:{port}/")
    assert [str(one) for one in target.addresses] == ["192.0.2.1"]
    with pytest.raises(Unreachable):
        post(target, b"", {})
    assert asked == ["rebind.example"]
    assert receiver.requests == []


def test_any_private_address_among_several_refuses_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def two(host: str, port: int, **_: Any) -> Any:
        return [(2, 1, 6, "", (address, port)) for address in ("93.184.215.14", "10.1.2.3")]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with pytest.raises(Refused, match=r"10\.1\.2\.3"):
        check("https://two.example/")


DRIPS = {
    "a header a byte at a time": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
    "the status line a byte at a time": (b"", b"H"),
    "endless 100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a chunk size that never ends": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0",
    ),
    "a chunk extension that never ends": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"x",
    ),
    "trailers that never end": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"A: b\r\n",
    ),
    "a body a byte at a time": (b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", b"x"),
    "a body without a length": (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "nothing at all": (b"", b""),
}


@pytest.fixture
def dripping(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a receiver that sends the second bytes again and again, as long as the test runs."""
    first, again = DRIPS[request.param]
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.sendall(first)
                while not stop.wait(0.05):
                    try:
                        connection.sendall(again)
                    except OSError:
                        return

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        stop.set()
        thread.join()


@pytest.mark.parametrize("dripping", DRIPS, indirect=True)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_peer_that_drips_is_cut_off_at_the_deadline(dripping: str, method: str) -> None:
    target = check(dripping, ["127.0.0.1"])
    call = {
        "GET": partial(request.get, target, max_bytes=10**6),
        "POST": partial(request.send, "POST", target, b"x", {}),
    }[method]
    with pytest.raises(Unreachable, match=r"within 0\.4 s"):
        call(total_s=0.4)


def test_a_peer_that_does_not_take_the_body_is_cut_off_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = check(f"http://127.0.0.1:{server.getsockname()[1]}/", ["127.0.0.1"])
        with pytest.raises(Unreachable, match=r"within 0\.4 s"):
            request.send("PUT", target, b"x" * 50_000_000, {}, total_s=0.4)


def _threads_and_files() -> tuple[int, int]:
    return threading.active_count(), sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_call_leaves_no_thread_and_no_socket_behind(receiver: Any) -> None:
    target = check(url_of(receiver), ["127.0.0.1"])
    post(target, b"body", {})
    before = _threads_and_files()
    for _ in range(5):
        post(target, b"body", {})
    # The receiver's own threads end a moment after their answer; one of ours is kept for all calls.
    until(lambda: _threads_and_files() <= before)


@pytest.fixture
def hung_name_servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    let_go = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: let_go.wait(20) and [])
        patch.setattr(addresses, "_LOOKUP_S", 0.2)
        patch.setattr(addresses, "_LOOKUPS", threading.BoundedSemaphore(2))
        yield
        let_go.set()
        for thread in threading.enumerate():
            if thread.name == "maskq-lookup":
                thread.join()


@pytest.mark.usefixtures("hung_name_servers")
def test_name_servers_that_do_not_answer_are_given_up() -> None:
    began = time.monotonic()
    for said in ("name servers of slow.example did not", "did not answer", "too many names"):
        with pytest.raises(Unreachable, match=said):
            check("https://slow.example/")
    assert time.monotonic() - began < 15  # the name servers hang for twenty


FORKING = """
import os, socket
from maskq import safe_http
def call(server):
    target = safe_http.check(f"http://127.0.0.1:{server.getsockname()[1]}/", ["127.0.0.1"], setting="")
    try:
        safe_http.send("POST", target, b"", {}, total_s=0.3)
    except safe_http.Unreachable as error:
        return 0 if "within 0.3 s" in str(error) else 1
with socket.create_server(("127.0.0.1", 0)) as server:
    first = call(server)  # the thread that watches the deadlines is the parent's
    child = os.fork()
    if not child:
        os._exit(call(server))
    print(first, os.waitpid(child, 0)[1])
"""


def test_a_forked_child_has_deadlines_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "0 0\n"


def test_the_address_that_is_connected_is_told(receiver: Any) -> None:
    told: list[Any] = []
    target = check(url_of(receiver, host="localhost"), ["localhost"])
    post(target, b"", {}, on_connect=told.append)
    assert [str(one) for one in told] == ["127.0.0.1"]


def test_importing_the_client_imports_no_http() -> None:
    code = (
        "import sys, maskq; print([n for n in sys.modules if n in ('urllib3', 'maskq.safe_http')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
