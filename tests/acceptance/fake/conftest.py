"""What a program sees of a client, on the fake and on a real stack: the same tests run on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.worlds import FakeWorld, RealWorld, World

from maskq import (
    AsyncClient,
    Client,
)
from maskq.contract.ids import new_id
from maskq_standalone.pytest_plugin import (
    maskq_fake,
    maskq_session_stack,
    maskq_stack,
    maskq_stack_options,
)

__all__ = ["maskq_fake", "maskq_session_stack", "maskq_stack"]  # fixtures of the plugin


@pytest.fixture(scope="session")
def maskq_stack_options(smallest_model: Path) -> dict[str, Any]:  # noqa: F811 - as users override it
    return {"model": str(smallest_model)}


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    tenant = f"t-{new_id()}"
    if request.param == "fake":
        yield FakeWorld(request.getfixturevalue("maskq_fake"), tenant)
        return
    request.getfixturevalue("maskq_stack")
    with Client.from_env() as client:
        yield RealWorld(client, AsyncClient.from_env(), tenant)


@pytest.fixture
def client(world: World) -> Client:
    return world.client
