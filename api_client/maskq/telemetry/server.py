"""Serves `GET /metrics` from a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from maskq.errors import MaskqError
from maskq.telemetry.series import CONTENT_TYPE, own_process
from maskq.telemetry.settings import TelemetrySettings

logger = logging.getLogger(__name__)

_RETRY_S: Final = 5.0  # while the port is taken, as by a process that still ends
_REQUEST_S: Final = 10.0  # for a slow peer


@contextmanager
def serving_metrics(
    settings: TelemetrySettings, text: Callable[[], bytes] = lambda: b""
) -> Iterator[None]:
    """Serve metrics at MASKQ_METRICS_PORT, if it is set, while the block runs.

    text: as of `MetricsServer`; default: nothing but what is known of every process.
    """
    if settings.metrics_port is None:
        yield
        return
    server = MetricsServer(settings.metrics_host, settings.metrics_port, text)
    server.start()
    try:
        yield
    finally:
        server.stop()


class MetricsServer:
    """A server on one port. A port that is taken is tried again: no job waits for metrics."""

    def __init__(self, host: str, port: int, text: Callable[[], bytes]) -> None:
        """text: the answer, in Prometheus' text format; the process's own CPU time, memory and files
        follow it. If it raises MaskqError, the answer is 503.
        """
        self._address = (host, port)
        self._text = text
        self._stop = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread = threading.Thread(target=self._run, name="maskq-metrics", daemon=True)

    @property
    def port(self) -> int | None:
        """The port that it listens at; None: it is taken."""
        return self._server.server_port if self._server else None

    def start(self) -> None:
        self._listen()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._server and not self._stop.wait(_RETRY_S):
            self._listen()
        if self._server:
            with self._server as server:
                while not self._stop.is_set():
                    server.handle_request()

    def _listen(self) -> None:
        try:
            self._server = _Server(self._address, self._text)
        except OSError as error:
            host, port = self._address
            logger.warning(
                "metrics: %s:%d cannot be listened at (%s); trying again",
                host,
                port,
                error.strerror,
            )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    timeout = 0.5

    def __init__(self, address: tuple[str, int], text: Callable[[], bytes]) -> None:
        self.text = text
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("metrics: a request of %s was cut off", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_S
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self._answer(HTTPStatus.NOT_FOUND, b"GET /metrics\n", "text/plain")
            return
        try:
            text = self.server.text() + own_process()
        except MaskqError as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n".encode(), "text/plain")
        else:
            self._answer(HTTPStatus.OK, text, CONTENT_TYPE)

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Do not log requests: Prometheus sends one every few seconds."""
