"""The settings that lead to the test servers, set as a user sets them: in the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from integration.worker.test_pipeline import Bench

    from maskq import Client
    from maskq_standalone.servers.redis import RedisServer
    from maskq_standalone.servers.s3 import S3Server
    from maskq_worker.model import Segmenter


@pytest.fixture
def environment(
    redis_server: RedisServer,
    s3_server: S3Server,
    key_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, str]:
    """MASKQ_ and AWS_ variables, in place while the test runs; also given, for child processes."""
    variables = {
        "MASKQ_REDIS_URL": redis_server.url,
        "MASKQ_S3_ENDPOINT_URL": s3_server.endpoint_url,
        "MASKQ_S3_BUCKET": s3_server.bucket,
        "MASKQ_KEY_PREFIX": key_prefix,
        "MASKQ_OUTPUT_PREFIX": key_prefix,
    } | s3_server.environment
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def only_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """No periodic check of this process finds a job's end: a wait that nobody wakes times out."""
    monkeypatch.setattr("maskq.client.waiting.waits.RECHECK_S", 3600.0)


@pytest.fixture(scope="session")
def segmenter(smallest_model: Path) -> Segmenter:
    """A model of milliseconds with random weights, on the CPU. No test changes it."""
    from maskq_worker.model import load_segmenter
    from maskq_worker.settings import WorkerSettings

    return load_segmenter(WorkerSettings(model=str(smallest_model), device="cpu"))


@pytest.fixture
def keep_on_s() -> float | None:
    """How long a thread of `bench` goes on with next jobs, s; None: as long as a worker does."""
    return None


@pytest.fixture
def bench_settings() -> dict[str, Any]:
    """Settings of `bench` beside the environment's; a file overrides this."""
    return {}


@pytest.fixture
def bench(
    segmenter: Segmenter,
    environment: dict[str, str],
    keep_on_s: float | None,
    bench_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bench]:
    """A worker's pipeline in this process."""
    from integration.worker.test_pipeline import Bench

    if keep_on_s is not None:
        monkeypatch.setattr("maskq_worker.jobs.runner._KEEP_ON_S", keep_on_s)
    made = Bench(segmenter, **bench_settings)
    yield made
    made.close()
    made.store.close()


@pytest.fixture
def client(bench: Bench) -> Iterator[Client]:
    """Of `bench`, whose model is registered."""
    from maskq import Client

    with Client.from_env() as made:
        yield made
