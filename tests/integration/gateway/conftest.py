"""The HTTP API over real HTTP, and callers with keys of one tenant or of none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration.worker.test_pipeline import Bench
from support.http_api import Api, serving

from maskq import Client
from maskq_gateway.asgi import application
from maskq_gateway.settings import GatewaySettings


@pytest.fixture
def client(environment: dict[str, str]) -> Iterator[Client]:
    with Client.from_env() as connected:
        yield connected


@pytest.fixture
def settings(environment: dict[str, str]) -> GatewaySettings:
    return GatewaySettings.load()


@pytest.fixture
def stranger(settings: GatewaySettings, client: Client, bench: Bench) -> Iterator[Api]:
    """Without a key."""
    with serving(application(settings, client)) as api:
        yield api


@pytest.fixture
def api(stranger: Api, client: Client) -> Api:
    return stranger.with_key(client.create_api_key(["submit", "read"]).text)


@pytest.fixture
def acme(stranger: Api, client: Client) -> Api:
    return stranger.with_key(client.create_api_key(["submit", "read"], tenant="acme").text)


@pytest.fixture
def other(stranger: Api, client: Client) -> Api:
    return stranger.with_key(client.create_api_key(["submit", "read"], tenant="other").text)
