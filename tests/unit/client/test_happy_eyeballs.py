"""Every checked address of a receiver is tried, and the name on its certificate still counts."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from maskq import safe_http
from maskq.safe_http import Unreachable, happy_eyeballs, request

NAME = "hook.example"
LOOPBACK = ipaddress.ip_address("127.0.0.1")


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[ThreadingHTTPServer]:
    """Listens on IPv4 only."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hook)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A port of 127.0.0.2 whose backlog is full: a connection attempt gets no answer at all."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener
        for one in waiting:
            one.close()


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    real = socket.getaddrinfo

    def answer(host: str, port: int, **named: Any) -> Any:
        if host != NAME:
            return real(host, port, **named)
        return [entry for one in addresses for entry in real(one, port, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def post(port: int, scheme: str = "http") -> int:
    target = safe_http.check(f"{scheme}://{NAME}:{port}/", [NAME], setting="X")
    return safe_http.post(target, b"{}", {}).status


def test_an_ipv4_only_receiver_is_reached_though_its_name_has_an_ipv6_address_first(
    receiver: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "::1", "127.0.0.1")
    assert post(receiver.server_port) == 200


def test_an_address_that_never_answers_costs_a_quarter_of_a_second(
    silent: socket.socket, receiver: ThreadingHTTPServer
) -> None:
    # Given a second listener on the port of the silent one, at another address
    port = silent.getsockname()[1]
    with socket.create_server(("127.0.0.1", port)):
        dead = [silent.getsockname()[0], "127.0.0.1"]
        began = time.monotonic()
        with happy_eyeballs.connect(
            [ipaddress.ip_address(a) for a in dead], port, timeout_s=60
        ) as s:
            assert s.getpeername()[0] == "127.0.0.1"
            assert s.gettimeout() is None
        assert 0.2 < time.monotonic() - began < 30


def test_every_address_that_failed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.3")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1: Connection refused; 127\.0\.0\.3: "):
        post(port)


def test_nobody_is_waited_for_longer_than_the_limit(silent: socket.socket) -> None:
    address, port = silent.getsockname()
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=rf"{address} within 0\.3 s"):
        happy_eyeballs.connect([ipaddress.ip_address(address)], port, timeout_s=0.3)
    assert time.monotonic() - began < 30


def test_families_take_turns() -> None:
    """Ten dead IPv6 addresses must not come before the only IPv4 address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = [ipaddress.ip_address(f"100::{n}") for n in range(1, 11)]
        assert happy_eyeballs.tried_first([*dead, LOOPBACK])[:3] == [dead[0], LOOPBACK, dead[1]]
        with happy_eyeballs.connect(
            [*dead, LOOPBACK], listener.getsockname()[1], timeout_s=60
        ) as s:
            assert s.getpeername()[0] == str(LOOPBACK)


def _certificate(directory: Path, name: str) -> Path:
    """A self-signed certificate with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "receiver.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.mark.parametrize(("certified", "reached"), [(NAME, True), ("other.example", False)])
def test_the_certificate_must_be_of_the_name_at_whichever_address_answers(
    receiver: ThreadingHTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    certified: str,
    reached: bool,
) -> None:
    pem = _certificate(tmp_path, certified)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    monkeypatch.setattr(receiver, "handle_error", lambda *_: None)
    monkeypatch.setattr(request, "_tls", lambda: ssl.create_default_context(cafile=str(pem)))
    resolve_to(monkeypatch, "::1", "127.0.0.1")
    if reached:
        assert post(receiver.server_port, "https") == 200
    else:
        with pytest.raises(Unreachable, match="certificate"):
            post(receiver.server_port, "https")
