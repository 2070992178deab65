"""A whole service per test process: real Valkey, real S3 server, real worker processes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from maskq import Client
from maskq_standalone.stack import Stack

LEASE_S = 3.0


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One worker with the demo checkpoint, shared by the tests that harm nothing."""
    with Stack(workers=1, pinned=True, env={"MASKQ_LEASE_S": str(LEASE_S)}) as running:
        yield running


@pytest.fixture
def fresh_stack() -> Iterator[Stack]:
    """Servers without workers, for a test that kills some."""
    with Stack(workers=0, pinned=True, env={"MASKQ_LEASE_S": str(LEASE_S)}) as running:
        yield running


@pytest.fixture
def credentials(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The AWS chain finds the stack's credentials."""
    name = "fresh_stack" if "fresh_stack" in request.fixturenames else "stack"
    for variable, value in request.getfixturevalue(name).environment.items():
        monkeypatch.setenv(variable, value)
    assert "AWS_ACCESS_KEY_ID" in os.environ


@pytest.fixture
def client(stack: Stack, credentials: None) -> Iterator[Client]:
    with Client.from_env() as connected:
        yield connected


@pytest.fixture
def fresh_client(fresh_stack: Stack, credentials: None) -> Iterator[Client]:
    with Client.from_env() as connected:
        yield connected
