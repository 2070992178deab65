"""A plugin of pytest for an environment that has the client over HTTP alone.

`python -m pytest --noconftest -p support.http_only FILE…` runs those tests of the files that need no
access to Redis, S3 or a worker, against the gateway that MASKQ_GATEWAY_URL names.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from maskq import Client

ABSENT = ("redis", "boto3", "botocore", "celery", "torch", "transformers", "fastapi")
ELSEWHERE = {"stack", "fresh_stack", "credentials", "direct"}  # of tests/acceptance/conftest.py


def pytest_configure(config: pytest.Config) -> None:
    """Raises UsageError in an environment that has more than the client over HTTP needs."""
    if there := [name for name in ABSENT if importlib.util.find_spec(name)]:
        raise pytest.UsageError(f"this environment has {', '.join(there)}")
    config.addinivalue_line("markers", "direct_only(reason): not for clients over HTTP")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    elsewhere = [item for item in items if _is_elsewhere(item)]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in elsewhere]


def _is_elsewhere(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    return (
        bool(ELSEWHERE & {*item.fixturenames}) or item.get_closest_marker("direct_only") is not None
    )


@pytest.fixture
def client() -> Iterator[Client]:
    with Client.from_env() as made:
        yield made


@pytest.fixture
def either_client(client: Client) -> Client:
    return client
