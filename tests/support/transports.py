"""The same client twice: directly on Redis and S3, and over HTTP by a gateway of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from support.http_api import serving

from maskq import Client
from maskq_gateway.asgi import application
from maskq_gateway.settings import GatewaySettings

TRANSPORTS = ("direct", "http")


@contextmanager
def connected(transport: str) -> Iterator[tuple[Client, Client]]:
    """The client under test, and a direct one; the environment holds the settings."""
    with Client.from_env(transport="direct") as direct:
        if transport == "direct":
            yield direct, direct
            return
        key = direct.create_api_key(["admin"]).text
        with (
            serving(application(GatewaySettings.load(), direct)) as api,
            Client(api.url, api_key=key) as client,
        ):
            yield client, direct
