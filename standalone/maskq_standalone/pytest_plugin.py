"""Fixtures for the tests of programs that use maskq: `maskq_fake` and `maskq_stack`.

pytest loads this module in every run, so it imports nothing of maskq before a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from maskq.testing import FakeClient
    from maskq_standalone.stack import Stack


@pytest.fixture
def maskq_fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClient]:
    """A FakeClient. During the test `Client.from_env()` and `AsyncClient.from_env()` share its jobs.

    MASKQ_WEBHOOK_SECRET holds its secret, so that `maskq.webhooks.verify` accepts its webhooks.
    """
    from maskq import AsyncClient, Client
    from maskq.testing import FakeAsyncClient, FakeClient

    client = FakeClient()

    def blocking(**_: Any) -> FakeClient:
        return FakeClient(client.fake)

    def awaited(**_: Any) -> FakeAsyncClient:
        return FakeAsyncClient(client.fake)

    monkeypatch.setattr(Client, "from_env", staticmethod(blocking))
    monkeypatch.setattr(AsyncClient, "from_env", staticmethod(awaited))
    monkeypatch.delenv("MASKQ_WEBHOOK_SECRET_FILE", raising=False)
    monkeypatch.setenv("MASKQ_WEBHOOK_SECRET", client.fake.webhook_secret)
    with client:
        yield client


@pytest.fixture(scope="session")
def maskq_stack_options() -> dict[str, Any]:
    """Arguments of `maskq_standalone.stack.Stack` for `maskq_stack`; override it in a conftest.py."""
    return {}


@pytest.fixture(scope="session")
def maskq_session_stack(maskq_stack_options: dict[str, Any]) -> Iterator[Stack]:
    """The stack that all tests of the run share; use `maskq_stack`, which sets the environment."""
    from maskq.extras import NotInstalled, require

    try:
        require("standalone", "the fixture maskq_stack")
    except NotInstalled as error:
        pytest.fail(str(error), pytrace=False)
    from maskq_standalone.stack import Stack

    local = {
        "MASKQ_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
        "MASKQ_PRESIGNED_ALLOWED_HOSTS": "127.0.0.1",
    }
    options: dict[str, Any] = {"workers": 1, "pinned": True, "webhooks": True, "http_api": True}
    options |= maskq_stack_options
    options["env"] = local | dict(options.get("env") or {})
    with Stack(**options) as stack:
        yield stack


@pytest.fixture
def maskq_stack(maskq_session_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """Redis, S3, a worker, a gateway and a webhook process on this machine, started once a run.

    During the test the environment holds its settings: `Client.from_env()` reaches it. Needs
    `pip install 'maskq[standalone]'`.
    """
    for name, value in maskq_session_stack.environment.items():
        monkeypatch.setenv(name, value)
    return maskq_session_stack
