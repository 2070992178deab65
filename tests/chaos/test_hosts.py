"""Several hosts on one Redis and S3: one is cut off and comes back; a Sentinel moves the primary."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from bench.checkpoints import write_smallest
from chaos.conftest import LEASE_S, Fleet
from chaos.half_open import Proxy
from chaos.load import Submitter, all_ended_well, speak_to
from support.net_hosts import NetHost, net_host
from support.redis_servers import Sentinel, TunedRedis, admin, follow
from support.waiting import until

from maskq import Client, JobStatus, Output
from maskq.contract.locations import S3Uri
from maskq_standalone.stack import Stack
from maskq_standalone.workers import Worker


@contextmanager
def worker_on(host: NetHost, stack: Stack) -> Iterator[Worker]:
    """A worker on another host, which reaches Redis and S3 over its cable."""
    servers = {"redis": stack.redis.port, "s3": stack.s3.port}
    with ExitStack() as opened:
        ports = {
            name: opened.enter_context(Proxy(("127.0.0.1", port), host=host.gateway)).port
            for name, port in servers.items()
        }
        environment = stack.environment | {
            "MASKQ_REDIS_URL": f"redis://:{stack.redis.password}@{host.gateway}:{ports['redis']}/0",
            "MASKQ_S3_ENDPOINT_URL": f"http://{host.gateway}:{ports['s3']}",
            "NO_PROXY": "*",
        }
        command = host.command(sys.executable, "-m", "maskq_worker")
        worker = Worker(host.name, stack.directory, environment, command=command)
        worker.start()
        try:
            worker.wait_ready(120)
            yield worker
        finally:
            worker.child.stop(30)


def test_a_host_is_cut_off_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_smallest(tmp_path / "smallest")
    env = {"MASKQ_LEASE_S": str(LEASE_S)}
    with ExitStack() as opened:
        first, second = (opened.enter_context(net_host(number)) for number in (1, 2))
        stack = opened.enter_context(Stack(workers=0, pinned=True, model=str(model), env=env))
        speak_to(monkeypatch, stack)
        workers = [opened.enter_context(worker_on(host, stack)) for host in (first, second)]
        pids = [worker.pid for worker in workers]
        fleet = Fleet(stack, opened.enter_context(Client.from_env()))
        place = fleet.stored_image()
        with Submitter(fleet.client, place) as load:
            time.sleep(3)
            first.pull_cable()
            cut = fleet.held_by(workers[0])
            # Its leases run out, and its jobs run on the other host
            time.sleep(3 * LEASE_S)
            first.plug_in()
            came_back_ms = _now_ms(stack)
            until(lambda: _ended_since(fleet, workers[0], came_back_ms), within_s=60)
            time.sleep(2)
        all_ended_well(fleet, load.ids)
        assert load.refused == 0
        assert [worker.pid for worker in workers] == pids
        _committed_once(fleet, load.ids)
        attempts = Counter(one.attempt for one in fleet.records())
        print(
            f"\na host cut off for {3 * LEASE_S:.0f} s with {len(cut)} jobs in hand: {len(load.ids)} "
            f"accepted, 0 failed, 0 lost, attempts {dict(attempts)}"
        )


def _now_ms(stack: Stack) -> int:
    with admin(stack.redis) as server:
        return int(server.time()[0]) * 1000


def _ended_since(fleet: Fleet, worker: Worker, since_ms: int) -> bool:
    page = fleet.client.list(status=JobStatus.SUCCEEDED, limit=200)
    return any(
        str(one.owner).endswith(f":{worker.pid}") and (one.ended_ms or 0) > since_ms
        for one in page.records
    )


def _committed_once(fleet: Fleet, ids: list[str]) -> None:
    """The manifest, the record and the one event name the same attempt's outputs."""
    store, bucket = fleet.stack.s3.client(), fleet.client.settings.s3_bucket
    in_events = {
        one.subject: one.job().result for one in fleet.events() if one.type == "maskq.job.succeeded"
    }
    records = {one.id: one for one in fleet.records()}
    for job_id in ids:
        result, told = records[job_id].result, in_events[job_id]
        assert result is not None
        assert told is not None
        body = store.get_object(Bucket=bucket, Key=f"maskq/{job_id}/result.json")["Body"].read()
        assert json.loads(body)["outputs"] == result.outputs == told.outputs
        mask = S3Uri.parse(result.outputs[Output.MASK])
        store.head_object(Bucket=mask.bucket, Key=mask.key)
    store.close()


def test_a_sentinel_fails_over_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the settings of docs/redis.md. The primary is killed; nobody tells the clients."""
    model = write_smallest(tmp_path / "smallest")
    env = {"MASKQ_LEASE_S": str(LEASE_S)}
    with Stack(workers=0, pinned=True, model=str(model), env=env) as stack, ExitStack() as opened:
        password = stack.redis.password
        replica = TunedRedis(tmp_path / "replica", f"masterauth {password}", password=password)
        replica.start()
        opened.callback(replica.stop)
        follow(replica, stack.redis)
        with admin(stack.redis) as primary:
            primary.config_set("min-replicas-to-write", 1)
        sentinel = Sentinel(tmp_path / "sentinel", stack.redis)
        sentinel.start()
        opened.callback(sentinel.stop)
        with redis.Redis(port=sentinel.port, decode_responses=True, protocol=2) as asked:
            until(lambda: len(asked.sentinel_slaves("maskq-test")) == 1, within_s=30)
        url = f"sentinel://:{password}@127.0.0.1:{sentinel.port}/0?master_name=maskq-test"
        there = {"MASKQ_REDIS_URL": url}
        speak_to(monkeypatch, stack, there)
        workers = stack.start_workers(2, there)
        pids = [worker.pid for worker in workers]
        fleet = Fleet(stack, opened.enter_context(Client.from_env()))
        place = fleet.stored_image()
        with Submitter(fleet.client, place) as load:
            time.sleep(3)
            before = len(load.ids)
            stack.kill_redis()
            until(lambda: len(load.ids) > before + 50, within_s=60)
        all_ended_well(fleet, load.ids)
        assert [worker.pid for worker in workers] == pids
        assert all(worker.child.alive for worker in workers)
        print(
            f"\nSentinel failover: {len(load.ids)} accepted, {load.refused} refused on the way and "
            f"sent again, 0 failed, 0 lost"
        )
