"""The same client twice: directly on Redis and S3, and over HTTP by a gateway of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.http_api import serving

from maskq import Client
from maskq_gateway.asgi import application
from maskq_gateway.settings import GatewaySettings

TRANSPORTS = ("direct", "http")


@contextmanager
def connected(transport: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Client, Client]]:
    """The client under test, and a direct one. `from_env` and `maskq` use the same transport then."""
    with Client.from_env(transport="direct") as direct:
        if transport == "direct":
            yield direct, direct
            return
        key = direct.create_api_key(["admin"]).text
        with (
            serving(application(GatewaySettings.load(), direct)) as api,
            Client(api.url, api_key=key) as client,
        ):
            monkeypatch.setenv("MASKQ_TRANSPORT", "http")
            monkeypatch.setenv("MASKQ_GATEWAY_URL", api.url)
            monkeypatch.setenv("MASKQ_API_KEY", key)
            yield client, direct
