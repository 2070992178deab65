"""The gateway on a free port, a caller of it with an API key, and what the caller sends and reads."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
import uvicorn
from PIL import Image
from support.uvicorn_thread import running
from support.waiting import until

from maskq_gateway.server import listening


class Api:
    """Calls the HTTP API as a program without our library does."""

    def __init__(self, url: str, pool: urllib3.PoolManager, key: str = "") -> None:
        self.url = url
        self.key = key
        self._pool = pool

    def with_key(self, key: str) -> Api:
        return Api(self.url, self._pool, key)

    def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> urllib3.BaseHTTPResponse:
        shown = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return self._pool.request(
            method, self.url + path, headers=shown | (headers or {}), redirect=False, **options
        )

    def get(self, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        return self.ask("GET", path, **options)

    def post(self, path: str, document: Any = None, **options: Any) -> urllib3.BaseHTTPResponse:
        if document is None:
            return self.ask("POST", path, **options)
        headers = {"Content-Type": "application/json"} | options.pop("headers", {})
        return self.ask("POST", path, body=json.dumps(document), headers=headers, **options)

    def problem(self, answer: urllib3.BaseHTTPResponse, status: int, code: str) -> str:
        """The detail of an error, after a look at its form."""
        assert answer.status == status, answer.data
        assert answer.headers["Content-Type"] == "application/problem+json"
        document = answer.json()
        assert (document["status"], document["code"]) == (status, code)
        return str(document["detail"])


@contextmanager
def serving(app: Any) -> Iterator[Api]:
    with listening("127.0.0.1", 0) as bound:
        config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=5)
        with running(config, bound) as (server, thread):
            until(lambda: server.started or not thread.is_alive(), within_s=20, every_s=0.005)
            assert thread.is_alive()
            with urllib3.PoolManager(retries=False, timeout=20, maxsize=8) as pool:
                yield Api(f"http://127.0.0.1:{bound.getsockname()[1]}", pool)


UNKNOWN = "0199d3c0-0000-7000-8000-000000000000"


def png(colour: str = "teal", size: tuple[int, int] = (60, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def uploaded(api: Api, fields: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """A job whose image came with the request."""
    form = {"image": ("photo.png", png(), "image/png"), **(fields or {})}
    answer = api.ask("POST", "/v1/jobs", fields=form, **options)
    assert answer.status == 202, answer.data
    record: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{record['id']}"
    return record


# --- events -------------------------------------------------------------------------------------------


class Events:
    """What an EventSource sees."""

    def __init__(self, api: Api, path: str, last: str = "") -> None:
        headers = {"Last-Event-ID": last} if last else {}
        self._answer = api.get(path, headers=headers, preload_content=False)
        assert self._answer.status == 200, self._answer.read()
        self._lines = (line for part in self._answer.stream(1) for line in part.decode())
        self.begin = self.next_block()  # of no event

    def next_block(self) -> str:
        text = ""
        while not text.endswith("\n\n"):
            text += next(self._lines)
        return text.strip()

    def next(self) -> tuple[str, dict[str, Any]]:
        """Cursor and event."""
        fields = dict(line.split(": ", 1) for line in self.next_block().splitlines())
        document = json.loads(fields["data"])
        assert fields["event"] == document["type"]
        return fields["id"], document

    def close(self) -> None:
        self._answer.close()
