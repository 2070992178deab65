"""The gateway on a free port, and a caller of it with an API key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
import uvicorn
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
