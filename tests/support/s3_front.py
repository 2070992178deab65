"""An HTTP server in front of the S3 emulator that answers some requests itself, as other stores do.

`python s3_front.py UPSTREAM_PORT` is one in a process of its own; `PUT /_front` gives it its rules.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "proxy-connection"}


@dataclass
class Rule:
    """What becomes of requests whose 'METHOD /bucket/key?query' matches."""

    match: str
    do: Literal["answer", "hang", "reset", "truncate", "lose_answer", "unconditional"] = "answer"
    status: int = 403
    code: str = "AccessDenied"
    words: str = "words of the store"
    times: int = -1  # for how many requests; -1: all


class S3Front:
    """In this process; `rules` may change at any time, the first that matches counts."""

    def __init__(self, upstream_port: int, port: int = 0) -> None:
        self.upstream_port = upstream_port
        self.rules: list[Rule] = []
        self.clock_offset_s = 0  # by which the store's clock differs
        self.seen: list[tuple[str, str]] = []  # Host and 'METHOD /path' of every request
        self.released = threading.Event()  # ends what hangs
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), _handler_of(self))
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def serve_forever(self) -> None:
        self._server.serve_forever()

    def rule_for(self, request: str) -> Rule | None:
        with self._lock:
            for rule in self.rules:
                if rule.times and re.search(rule.match, request):
                    rule.times -= rule.times > 0
                    return rule
        return None

    def asked(self, match: str) -> int:
        """How many requests matched so far."""
        return sum(bool(re.search(match, request)) for _, request in list(self.seen))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # without a look at the name server

    def handle_error(self, *_: Any) -> None:
        """A client that went."""


def _handler_of(front: S3Front) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True
        upstream: http.client.HTTPConnection | None = None

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)  # absolute, where we are asked as a proxy
            path = url.path + (f"?{url.query}" if url.query else "")
            if path == "/_front":
                front.rules = [Rule(**one) for one in json.loads(body)]
                return self.answer(200, {}, b"")
            front.seen.append((self.headers["Host"], f"{self.command} {path}"))
            rule = front.rule_for(f"{self.command} {path}")
            if rule is None:
                return self.answer(*self.forwarded(path, body))
            match rule.do:
                case "hang":
                    front.released.wait(300)
                    self.close_connection = True
                case "reset":
                    self.reset()
                case "lose_answer":
                    self.forwarded(path, body)
                    self.reset()
                case "truncate":
                    status, headers, answer = self.forwarded(path, body)
                    headers = headers | {"Content-Length": str(len(answer))}
                    self.answer(status, headers, answer[: len(answer) // 2])
                    self.reset()
                case "unconditional":
                    del self.headers["If-None-Match"]
                    self.answer(*self.forwarded(path, body, resign=True))
                case "answer":
                    text = f"<Error><Code>{rule.code}</Code><Message>{rule.words}</Message></Error>"
                    found = b"" if self.command == "HEAD" else text.encode()
                    self.answer(rule.status, {"Content-Type": "application/xml"}, found)

        def handle_expect_100(self) -> bool:
            going_on = super().handle_expect_100()
            self.wfile.flush()
            return going_on

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = serve

        def forwarded(
            self, path: str, body: bytes, *, resign: bool = False
        ) -> tuple[int, dict[str, str], bytes]:
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in _HOP_BY_HOP
            }
            if resign:  # a header that was signed is gone
                path, headers = _presigned(front, self.command, path), {}
            if self.upstream is None:
                self.upstream = http.client.HTTPConnection("127.0.0.1", front.upstream_port)
            self.upstream.request(self.command, path, body, headers)
            answer = self.upstream.getresponse()
            found = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP}
            if front.clock_offset_s:
                (name,) = (name for name in found if name.lower() == "date")
                time_there = parsedate_to_datetime(found[name])
                time_there += timedelta(seconds=front.clock_offset_s)
                found[name] = format_datetime(time_there, usegmt=True)
            return answer.status, found, answer.read()

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            lengths = {name.lower() for name in headers}
            for name, value in headers.items():
                self.send_header(name, value)
            if "content-length" not in lengths:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            self.wfile.flush()

        def reset(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def finish(self) -> None:
            if self.upstream:
                self.upstream.close()
            with contextlib.suppress(OSError, ValueError):
                super().finish()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _presigned(front: S3Front, method: str, path: str) -> str:
    """The same request of an object, signed by the credentials in the environment."""
    import boto3
    from botocore.config import Config

    signer = boto3.Session().client(  # not the default session: it keeps credentials
        "s3",
        endpoint_url=f"http://127.0.0.1:{front.upstream_port}",
        region_name="us-east-1",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    bucket, _, key = path.partition("?")[0].lstrip("/").partition("/")
    operation = {"PUT": "put_object", "GET": "get_object"}[method]
    url = urlsplit(signer.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": key}))
    return f"{url.path}?{url.query}"


def tell(port: int, rules: Sequence[Rule]) -> None:
    """Give a front in another process its rules."""
    told = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    told.request("PUT", "/_front", json.dumps([asdict(rule) for rule in rules]))
    assert told.getresponse().status == 200
    told.close()


if __name__ == "__main__":
    front = S3Front(int(sys.argv[1]), int(sys.argv[2]))
    front.seen = type("Nowhere", (list,), {"append": lambda *_: None})()
    threading.Thread(target=lambda: (time.sleep(3600), sys.exit()), daemon=True).start()
    front.serve_forever()
