"""A whole service per test process: real Valkey, real S3 server, real worker processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.http_stack import is_over_http
from support.transports import TRANSPORTS, connected

from maskq import Client
from maskq_standalone.stack import Stack

LEASE_S = 3.0


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One worker with the demo checkpoint, shared by the tests that harm nothing.

    All of them run in one pytest process (tests/conftest.py): it is started once.
    """
    # This one worker of the suite computes with several threads.
    env = {"MASKQ_LEASE_S": str(LEASE_S), "OMP_NUM_THREADS": "2"}
    with Stack(workers=1, pinned=True, env=env) as running:
        yield running


@pytest.fixture(scope="session")
def webhook_stack(smallest_model: Path) -> Iterator[Stack]:
    """With a process that posts webhooks; receivers and images may be on this machine."""
    env = {
        "MASKQ_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
        "MASKQ_PRESIGNED_ALLOWED_HOSTS": "127.0.0.1",
    }
    model = str(smallest_model)
    with Stack(workers=1, pinned=True, webhooks=True, model=model, env=env) as running:
        yield running


@pytest.fixture
def stack_options() -> dict[str, Any]:
    """What `fresh_stack` is made with beside its defaults; a file overrides this."""
    return {}


@pytest.fixture
def fresh_stack(smallest_model: Path, stack_options: dict[str, Any]) -> Iterator[Stack]:
    """Servers of a test's own, without workers, for a test that kills some.

    Its model costs nothing: a worker starts in two thirds of the time, and is the same one otherwise.
    """
    options = {"workers": 0, "pinned": True, "model": str(smallest_model), **stack_options}
    env = {"MASKQ_LEASE_S": str(LEASE_S)} | options.pop("env", {})
    with Stack(env=env, **options) as running:
        yield running


@pytest.fixture(autouse=True)
def own_aws_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3's default session keeps the first credentials that it found: an earlier test's."""
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)


@pytest.fixture
def credentials(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The AWS chain finds the stack's credentials."""
    name = "fresh_stack" if "fresh_stack" in request.fixturenames else "stack"
    for variable, value in request.getfixturevalue(name).environment.items():
        monkeypatch.setenv(variable, value)
    assert "AWS_ACCESS_KEY_ID" in os.environ


@pytest.fixture
def client(stack: Stack, credentials: None) -> Iterator[Client]:
    with Client.from_env() as made:
        yield made


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "either_client" in metafunc.fixturenames:
        transports = ("http",) if is_over_http(metafunc.config) else TRANSPORTS
        metafunc.parametrize("either_client", transports, indirect=True)


@pytest.fixture
def either_client(
    stack: Stack,
    credentials: None,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Client]:
    """A client that reaches Redis and S3 itself, and one that calls a gateway of this process."""
    with connected(request.param, monkeypatch) as (client, _):
        yield client


@pytest.fixture
def fresh_client(fresh_stack: Stack, credentials: None) -> Iterator[Client]:
    with Client.from_env() as made:
        yield made


@pytest.fixture
def direct(credentials: None) -> Iterator[Client]:
    """For what needs access to Redis and S3, whatever the transport of the client under test."""
    with Client.from_env(transport="direct") as made:
        yield made
