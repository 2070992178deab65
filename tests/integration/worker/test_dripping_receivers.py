"""Receivers that never end their answer hold up no other, nor the end of the process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from support.dripping import Dripping
from support.waiting import until

from maskq import Client, webhooks
from maskq.ledger import Ledger, calls
from maskq_worker.webhooks import Deliverer, WebhookSettings

IMAGE = "s3://photos/a.png"
DRIP = b"HTTP/1.1 200 OK\r\nX-Slow: "
WAIT_S = 60.0
SOON_S = 10.0  # a call of a receiver that drips is given up after twenty
# `python -m maskq_worker.webhooks`, which leaves calls in progress sooner than after eight seconds
PROCESS = """
import runpy
from maskq_worker.webhooks import process
process.WEBHOOKS_DRAIN_S = 1.0
runpy.run_module("maskq_worker.webhooks", run_name="__main__")
"""


class Good:
    """Answers at once, and notes when it was called."""

    def __init__(self) -> None:
        self.heard: list[float] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.heard.append(time.monotonic())
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def good() -> Iterator[Good]:
    made = Good()
    yield made
    made.close()


@pytest.fixture
def client(environment: dict[str, str]) -> Iterator[Client]:
    with Client.from_env() as made:
        ledger = Ledger.of(made.settings)
        ledger.run(calls.register_model("demo", {}))
        ledger.close()
        yield made


@contextmanager
def delivering(environment: dict[str, str], allowed: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The process that `maskq worker --role webhooks` supervises."""
    settings = {
        "MASKQ_WEBHOOK_SECRET": webhooks.new_secret(),
        "MASKQ_WEBHOOK_ALLOWED_HOSTS": ",".join(allowed),
        "MASKQ_LOG_LEVEL": "WARNING",
    }
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS],
        env={**os.environ, **environment, **settings},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def tell(client: Client, url: str, times: int = 1) -> float:
    """Have a webhook posted, as often; returns when the last was due."""
    for job in [client.submit(IMAGE, webhook=url) for _ in range(times)]:
        job.cancel()
    return time.monotonic()


def test_fifty_dripping_receivers_hold_up_neither_a_good_one_nor_the_end(
    client: Client, environment: dict[str, str], good: Good
) -> None:
    # Given fifty receivers that drip, each with more than it is called at once
    with (
        Dripping(50, first=DRIP) as dripping,
        delivering(environment, ["127.0.0.1", *dripping.addresses]) as process,
    ):
        for number in range(50):
            tell(client, dripping.url(number), times=3)
        until(lambda: len(dripping.connected) == 50)

        # When one that nobody knows yet is told something, and then again
        for nth in (1, 2, 3):
            due = tell(client, good.url)
            until(lambda: len(good.heard) == nth)  # noqa: B023
            assert good.heard[-1] - due < SOON_S

        # And the process is told to end
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, said = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, said
        assert time.monotonic() - began < SOON_S
        assert "webhooks are left unfinished; they are posted again" in said


def test_thousands_of_names_of_one_receiver_are_four_calls_at_a_time(
    client: Client, good: Good, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **named: Any) -> Any:
        return real("127.0.1.1" if ".evil" in host else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    names = [f"hook.evil{n}.example" for n in range(150)]
    names += [f"hook{n}.evil.example" for n in range(150)]
    ledger = Ledger.of(client.settings)
    settings = WebhookSettings.load(
        webhook_secret=webhooks.new_secret(), webhook_allowed_hosts=",".join(["127.0.0.1", *names])
    )
    deliverer = Deliverer(ledger, settings)
    with Dripping(1, first=DRIP) as dripping:
        for name in names:
            tell(client, f"http://{name}:{dripping.port}/")
        deliverer.deliver_due()
        until(lambda: dripping.connected)
        due = tell(client, good.url)
        while not good.heard:
            assert time.monotonic() < due + WAIT_S
            if not deliverer.deliver_due():
                time.sleep(0.01)
        assert good.heard[0] - due < SOON_S
        assert dripping.most_at_once <= 4
    deliverer.close()
    ledger.close()
