"""A deployment in which all is well, for a worker; each test plants one fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.doctor import COMMIT, MODEL, join
from support.ledger_harness import LedgerHarness
from support.redis_servers import TunedRedis, running

from maskq.cli.doctor import redis_server
from maskq.ledger import Ledger
from maskq_standalone.servers.s3 import S3Server
from maskq_worker.model.checkpoint.files import RECORD, sha256_of


@pytest.fixture(autouse=True)
def a_busy_machine_is_no_slow_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "_SLOW_MS", 10_000.0)


@pytest.fixture(scope="module")
def well_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TunedRedis]:
    server = TunedRedis(tmp_path_factory.mktemp("well"), "maxmemory 200mb")
    with running(server):
        yield server


@pytest.fixture
def pulled(smallest_model: Path, tmp_path: Path) -> Path:
    """A checkpoint as `maskq weights pull` leaves it."""
    folder = tmp_path / "pulled"
    shutil.copytree(smallest_model, folder)
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    record = {"model": MODEL, "revision": COMMIT, "requested": "main", "files": files}
    (folder / RECORD).write_text(json.dumps(record))
    return folder


@pytest.fixture
def settings(
    well_redis: TunedRedis,
    s3_server: S3Server,
    key_prefix: str,
    pulled: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The environment of a worker in which doctor finds nothing."""
    given = {
        "MASKQ_REDIS_URL": well_redis.url,
        "MASKQ_KEY_PREFIX": key_prefix,
        "MASKQ_S3_ENDPOINT_URL": s3_server.endpoint_url,
        "MASKQ_S3_BUCKET": s3_server.bucket,
        "MASKQ_OUTPUT_PREFIX": key_prefix,
        "MASKQ_ALLOWED_LOCATIONS": f"s3://{s3_server.bucket}",
        "MASKQ_MODEL": str(pulled),
        "MASKQ_DEVICE": "cpu",
        **s3_server.environment,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def ledger(settings: None, well_redis: TunedRedis, key_prefix: str) -> Iterator[LedgerHarness]:
    """Of a deployment that a worker serves and sweeps."""
    made = Ledger(well_redis.url, key_prefix)
    harness = LedgerHarness(made, model=None)
    join(harness)
    harness.sweep(after_ms=None)
    yield harness
    made.close()
