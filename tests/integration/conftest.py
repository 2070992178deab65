"""The settings that lead to the test servers, set as a user sets them: in the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
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


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    """A model of milliseconds with random weights, on the CPU."""
    from bench.checkpoints import write_smallest

    from maskq_worker.model import load_segmenter
    from maskq_worker.settings import WorkerSettings

    model = write_smallest(tmp_path_factory.mktemp("models") / "smallest")
    return load_segmenter(WorkerSettings(model=str(model), device="cpu"))
