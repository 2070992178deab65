"""maskq workers, top and info, and doctor on a whole stack in which all is well."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from PIL import Image
from support.doctor import COMMIT, MODEL, doctor, join
from support.ledger_harness import LedgerHarness
from support.redis_servers import TunedRedis
from support.terminal import Terminal
from support.transports import TRANSPORTS, connected
from support.waiting import until
from typer.testing import CliRunner

from maskq import Client, JobFailed
from maskq.cli import build
from maskq_standalone.stack import Stack
from maskq_worker.model.checkpoint.files import RECORD, sha256_of

IMAGE = Image.new("RGB", (64, 48), "teal")


@pytest.fixture(scope="module")
def stack(smallest_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("views") / "pulled"
    shutil.copytree(smallest_model, folder)
    files = {path.name: sha256_of(path) for path in folder.iterdir()}
    record = {"model": MODEL, "revision": COMMIT, "requested": "main", "files": files}
    (folder / RECORD).write_text(json.dumps(record))
    env = {
        "MASKQ_DEVICE": "cpu",
        "MASKQ_ALLOWED_LOCATIONS": "s3://maskq",
        "MASKQ_MAX_BATCH_SIZE": "1",
    }
    with Stack(
        workers=1, model=str(folder), env=env, pinned=True, webhooks=True, http_api=True
    ) as running:
        with redis.Redis.from_url(running.redis.url) as admin:
            admin.config_set("maxmemory", "200mb")
        yield running


@pytest.fixture
def env(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=TRANSPORTS)
def client(
    env: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    with connected(request.param, monkeypatch) as (client, _):
        yield client


def said(*arguments: str) -> str:
    run = CliRunner().invoke(build(), arguments)
    assert run.exit_code == 0, run.output
    return run.stdout


def document(*arguments: str) -> Any:
    return json.loads(said(*arguments, "--json"))


@pytest.mark.parametrize("role", ["worker", "publisher", "client"])
def test_doctor_finds_nothing_where_all_is_well(env: None, role: str) -> None:
    report = doctor("--role", role)
    assert {one["level"] for one in report.findings} == {"ok"}, report.findings
    assert report.code == 0


def test_workers_shows_who_serves_what_and_how_busy_it_is(client: Client, stack: Stack) -> None:
    (worker,) = client.workers()
    assert (worker.model, worker.revision) == (MODEL, COMMIT)
    assert (worker.max_batch_size, worker.concurrency) == (1, 5)
    assert (worker.dtype, worker.precision) == ("float32", "exact")
    assert (worker.device, worker.pid) == ("cpu", str(stack.workers[0].pid))
    assert worker.version
    assert worker.beat_age_s is not None
    assert worker.beat_age_s < 15
    (shown,) = document("workers")["workers"]
    assert shown["owner"] == worker.owner
    assert MODEL in said("workers")

    # It tells what it did with its next heartbeat, at most 10 s later
    for job in client.submit_many([IMAGE] * 10):
        job.wait(timeout=60)
    until(lambda: client.workers()[0].jobs_per_s)


def test_info_shows_the_deployment_and_no_secret(client: Client, stack: Stack) -> None:
    client.segment(IMAGE)
    found = document("info")
    assert found["models"] == [{"name": MODEL, "revisions": [COMMIT], "default": True, "labels": 8}]
    assert found["stores"]["redis_version"].startswith("valkey")
    assert found["totals"]["records"] > 0
    assert found["limits"]["max_attempts"] == 3
    assert {"client", "asked", "events"} <= found["versions"].keys()
    text = said("info")
    assert f"revision {COMMIT}" in text
    for secret in (stack.redis.password, stack.s3.secret_access_key):
        assert secret not in text
        assert secret not in json.dumps(found)


def test_top_is_one_table_where_there_is_no_terminal(client: Client) -> None:
    job = client.submit("s3://maskq/nothing-is-here.png")
    with pytest.raises(JobFailed):
        job.wait(timeout=60)
    lines = said("top").splitlines()
    assert "\x1b" not in "".join(lines)
    assert any(line.startswith(f"{MODEL} *") for line in lines)
    assert any(job.id in line and "not_found" in line for line in lines)


def test_a_worker_that_drains_says_so_and_then_is_gone(stack: Stack, client: Client) -> None:
    worker = stack.start_worker()
    until(lambda: len(client.workers()) == 2)
    worker.terminate()
    until(lambda: len(client.workers()) == 1)


# --- top in a terminal --------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("\x03", 130)], ids=["q", "Ctrl-C"])
def test_top_leaves_the_terminal_as_it_was(ledger: LedgerHarness, key: str, code: int) -> None:
    ledger.submit(model=MODEL)
    with Terminal(["top", "--interval", "0.3"]) as terminal:
        before = terminal.mode
        terminal.shows("host:1")
        terminal.shows("q quits")
        assert terminal.mode != before  # keys come without Enter
        terminal.type(key)
        assert terminal.ended() == code
        assert terminal.mode == before
        assert "\x1b[?1049h" in terminal.raw  # the screen of its own
        assert terminal.raw.rindex("\x1b[?1049l") > terminal.raw.rindex("q quits")
        assert "Traceback" not in terminal.text


def test_top_follows_what_happens(ledger: LedgerHarness) -> None:
    with Terminal(["top", "--interval", "0.3"]) as terminal:
        terminal.shows("0 queued")
        ledger.submit_many(7, model=MODEL)
        terminal.shows("7 queued")
        join(ledger, "host:2")
        terminal.shows("host:2")


def test_no_line_of_top_is_wider_than_the_terminal(ledger: LedgerHarness) -> None:
    join(ledger, f"{'a-pod-with-a-long-name-' * 4}:1", model="organisation/" + "x" * 60)
    for columns in (60, 80, 132):
        with Terminal(["top", "--once"], columns=columns) as terminal:
            assert terminal.ended() == 0
            widest = max(map(len, terminal.text.splitlines()))
            assert widest <= columns
            assert "IN HAND" in terminal.text


def test_top_goes_on_while_redis_is_away(
    tmp_path: Path, ledger: LedgerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = TunedRedis(tmp_path / "redis")
    server.start()
    monkeypatch.setenv("MASKQ_REDIS_URL", server.url)
    try:
        with Terminal(["top", "--interval", "0.3"]) as terminal:
            terminal.shows("q quits")
            server.stop()
            terminal.shows("cannot be reached")
            terminal.forget()
            server.start()
            terminal.shows("0 queued")
            terminal.type("q")
            assert terminal.ended() == 0
    finally:
        server.stop()
