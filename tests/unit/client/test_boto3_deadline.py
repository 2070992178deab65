"""A store that drips ends no request in time; the deadline does. Real sockets, no S3 server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.dripping import Dripping
from support.waiting import until

from maskq import s3
from maskq.contract.locations import S3Uri
from maskq.s3.errors import Meaning, StoreError, typed_errors
from maskq.safe_http import boto3_deadline
from maskq_worker.storage import obstore_client
from maskq_worker.storage.obstore_client import (
    LeftToBoto3,
    ObstoreClient,
    ReadRequest,
    Timeouts,
    WriteRequest,
)

pytestmark = pytest.mark.slow

READ_S = 0.4  # of one read; a whole request has half as much again
PLACE = S3Uri("photos", "a.png")
OK = b'HTTP/1.1 200 OK\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nETag: "x"\r\n'
DRIPS = {
    "a header": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body": (OK + b"Content-Length: 1000\r\n\r\n", b"x"),
    "a body of chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "a body without a length": (b"HTTP/1.0 200 OK\r\n\r\n", b"x"),
    "an error": (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9000000000\r\n\r\n", b"x"),
}


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(boto3_deadline, "_UNKNOWN_BYTES", 0)


def connect(endpoint_url: str) -> Any:
    return s3.connect(endpoint_url, read_timeout_s=READ_S, attempts=1)


def connect_within(total_s: float, store: Any) -> Any:
    """Only the deadline of a whole request is short."""
    client = s3.connect(f"http://127.0.0.1:{store.server_address[1]}", attempts=1)
    boto3_deadline.limit_requests(client, total_s=total_s)
    return client


def get(client: Any) -> bytes:
    body: bytes = client.get_object(Bucket=PLACE.bucket, Key=PLACE.key)["Body"].read()
    return body


def put(client: Any) -> None:
    client.put_object(Bucket=PLACE.bucket, Key=PLACE.key, Body=b"x" * 1000)


def listed(client: Any) -> None:
    client.list_objects_v2(Bucket=PLACE.bucket)


@pytest.mark.parametrize("call", [get, put, listed])
@pytest.mark.parametrize("drip", DRIPS)
def test_a_request_of_a_store_that_drips_ends_at_its_deadline(
    drip: str, call: Callable[[Any], None]
) -> None:
    first, again = DRIPS[drip]
    with Dripping(first=first, again=again) as dripping:
        client = connect(dripping.endpoint_url)
        began = time.monotonic()
        with pytest.raises(StoreError) as raised, typed_errors(PLACE):
            call(client)
        assert raised.value.meaning is Meaning.OUTAGE
        assert time.monotonic() - began < 30  # the store drips as long as the test runs
        client.close()


class Store(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.peers.add(self.client_address)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        for byte in b"abc":
            self.server.pause.wait(self.server.pause_s)  # type: ignore[attr-defined]
            self.wfile.write(bytes([byte]))

    def do_PUT(self) -> None:
        self.server.pause.wait(self.server.pause_s)  # type: ignore[attr-defined]
        left = int(self.headers["Content-Length"])
        while left and (part := self.rfile.read(min(left, 2**20))):
            left -= len(part)
        self.close_connection = True
        if not left:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.send_header("ETag", '"x"')
            self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def store() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    server.peers, server.pause, server.pause_s = set(), threading.Event(), 0.0
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.pause.set()
    server.shutdown()
    thread.join()
    server.server_close()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_connections_are_kept_and_outlive_the_deadlines_of_their_requests(store: Any) -> None:
    client = connect_within(2.0, store)
    assert get(client) == b"abc"
    before = open_files()
    for _ in range(20):
        assert get(client) == b"abc"
    assert open_files() <= before  # what earlier tests left may be closed meanwhile
    store.pause.wait(2.2)  # past the deadline of the last request
    assert get(client) == b"abc"
    assert len(store.peers) == 1
    client.close()


def test_bytes_that_were_announced_get_their_time(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect_within(2.0, store)
    store.pause_s = 0.8  # three of them take longer than the request without its bytes
    with pytest.raises(StoreError), typed_errors(PLACE):
        get(client)
    monkeypatch.setattr(boto3_deadline, "BYTES_S", 0.1)
    assert get(client) == b"abc"
    client.close()


def test_bytes_that_are_sent_get_their_time(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = s3.connect(
        f"http://127.0.0.1:{store.server_address[1]}", read_timeout_s=1.0, attempts=1
    )
    store.pause_s = 2.0
    body = b"x" * 2**24  # more than the sockets' buffers take
    client.put_object(Bucket=PLACE.bucket, Key=PLACE.key, Body=body)
    monkeypatch.setattr(boto3_deadline, "BYTES_S", 1e12)
    with pytest.raises(StoreError), typed_errors(PLACE):
        client.put_object(Bucket=PLACE.bucket, Key=PLACE.key, Body=body)
    client.close()


def test_a_body_that_nobody_reads_to_its_end_keeps_no_connection(store: Any) -> None:
    client = connect(f"http://127.0.0.1:{store.server_address[1]}")
    assert get(client) == b"abc"
    before = open_files()
    for _ in range(3):
        client.get_object(Bucket=PLACE.bucket, Key=PLACE.key)["Body"].close()
    client.close()
    until(lambda: open_files() < before)  # the server, in this process, closes its ends as well


@pytest.mark.parametrize("drip", DRIPS)
def test_obstore_ends_as_well(drip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obstore_client, "_SMALL", Timeouts(READ_S, 1.5 * READ_S))
    first, again = DRIPS[drip]
    with Dripping(first=first, again=again) as dripping:
        client = connect(dripping.endpoint_url)
        fast = ObstoreClient(client)
        began = time.monotonic()
        with pytest.raises((LeftToBoto3, StoreError)):
            fast.get(ReadRequest(PLACE, max_bytes=10**6), on_answer=lambda: None)
        assert time.monotonic() - began < 30  # the store drips as long as the test runs
        client.close()


def test_obstore_uploads_a_large_object_for_as_long_as_it_takes(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obstore_client, "_SMALL", Timeouts(1.0, 1.0))
    store.pause_s = 2.0
    client = connect(f"http://127.0.0.1:{store.server_address[1]}")
    fast = ObstoreClient(client)
    fast.put(WriteRequest(PLACE, b"x" * 2**24, "a/b", {}))
    monkeypatch.setattr(obstore_client, "_SMALL_BYTES", 2**30)
    with pytest.raises(StoreError, match="in time"):
        fast.put(WriteRequest(PLACE, b"x" * 2**24, "a/b", {}))
    client.close()
