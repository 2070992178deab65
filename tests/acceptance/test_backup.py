"""The procedure of docs/backup.md: a snapshot of Redis and a copy of the bucket, restored elsewhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.redis_servers import TunedRedis, admin, running
from support.waiting import until
from tools.releases.state import dump_bucket, load_bucket

from maskq import Client, JobNotFound, JobStatus
from maskq_standalone.stack import Stack

IMAGE = Image.new("RGB", (64, 48), "teal")


def snapshot(stack: Stack) -> Path:
    """`BGSAVE`; the file that it writes."""
    with admin(stack.redis) as server:
        before = server.lastsave()
        until(lambda: server.time()[0] > before.timestamp())  # its times are whole seconds
        server.bgsave()
        until(lambda: server.lastsave() > before)
    return stack.redis.directory / "dump.rdb"


def restore_redis(copy: Path, directory: Path) -> None:
    """With `appendonly yes` a server reads no dump.rdb: it starts without, then writes its file."""
    directory.mkdir(parents=True)
    shutil.copy(copy, directory / "dump.rdb")
    server = TunedRedis(directory, "appendonly no")
    with running(server), admin(server) as asked:
        asked.config_set("appendonly", "yes")
        until(lambda: asked.info("persistence")["aof_rewrite_in_progress"] == 0)
        until(lambda: asked.info("persistence")["aof_last_bgrewrite_status"] == "ok")
        until(lambda: (directory / "appendonlydir").exists())


def use(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)


def test_a_restored_copy_goes_on_where_the_backup_was_taken(
    smallest_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"pinned": True, "model": str(smallest_model)}
    env = {"MASKQ_LEASE_S": "2"}
    # Given jobs that have ended, that wait, and that end between the two copies
    with Stack(tmp_path / "first", workers=1, env=env, **options) as stack:
        use(stack, monkeypatch)
        with Client.from_env() as client:
            done = [client.submit(IMAGE).id for _ in range(3)]
            for job_id in done:
                client.get(job_id).wait(timeout=60)
            (worker,) = stack.workers
            worker.terminate()
            worker.child.wait_ended(60)
            waiting = [client.submit(IMAGE).id for _ in range(3)]
            between = client.submit(IMAGE, priority="high").id
            shutil.copy(snapshot(stack), tmp_path / "dump.rdb")
            worker.start()
            client.get(between).wait(timeout=60)
            later = client.submit(IMAGE).id
            client.get(later).wait(timeout=60)
        store = stack.s3.client()
        objects = dump_bucket(store, "maskq")
        store.close()
    # When both copies are restored into a fresh place
    restore_redis(tmp_path / "dump.rdb", tmp_path / "second" / "redis")
    with Stack(tmp_path / "second", workers=0, env=env, **options) as stack:
        use(stack, monkeypatch)
        store = stack.s3.client()
        load_bucket(store, "maskq", objects, 0, 0)
        store.close()
        with Client.from_env() as client:
            assert len(client.list(status=JobStatus.QUEUED).records) == 4
            stack.start_workers(1)
            # Then what had ended is there, and what waited runs
            for job_id in (*done, *waiting, between):
                assert client.get(job_id).wait(timeout=60).mask().size == (64, 48)
            # A result that was committed after the snapshot is adopted, not made twice
            manifest = objects[f"maskq/{between}/result.json"]["text"]
            record = client.get(between).refresh()
            assert record.result is not None
            assert all(uri in manifest for uri in record.result.outputs.values())
            # What was submitted after the snapshot is unknown; its result.json is in the bucket
            with pytest.raises(JobNotFound):
                client.get(later)
            assert f"maskq/{later}/result.json" in objects
        command = [str(Path(sys.executable).with_name("maskq")), "verify", between]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert said.returncode == 0, said.stdout + said.stderr
