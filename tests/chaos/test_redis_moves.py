"""A failover and back under load, every process as the user of its role, TLS over restarts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import urllib3
from bench.checkpoints import write_smallest
from chaos.conftest import IMAGE, LEASE_S, Fleet
from chaos.load import Submitter, all_ended_well, speak_to
from support.acl_stack import AclStack
from support.redis_servers import TunedRedis, follow, swap
from support.switch import Switch
from support.tls import Authority, TlsProxy
from urllib3.exceptions import HTTPError

from maskq import Client
from maskq_standalone.children.child import Child
from maskq_standalone.ports import free_port
from maskq_standalone.stack import Stack
from maskq_standalone.workers import WEBHOOKS_COMMAND, Worker

SECRET = "whsec_bWFza3EgdGVzdHMgc2lnbiB3aXRoIHRoaXMga2V5Lg=="


@contextmanager
def webhooks_process(stack: Stack, env: Mapping[str, str]) -> Iterator[Worker]:
    process = Worker(
        "webhooks-2", stack.directory, stack.environment | dict(env), command=WEBHOOKS_COMMAND
    )
    process.start()
    try:
        process.wait_ready(60)
        yield process
    finally:
        process.child.stop(10)


@contextmanager
def receiver() -> Iterator[str]:
    """Says yes to every webhook; its URL."""
    command = [str(Path(sys.executable).with_name("maskq")), "webhooks", "listen", "--port", "0"]
    process = subprocess.Popen(
        command,
        env=os.environ | {"MASKQ_WEBHOOK_SECRET": SECRET},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        yield process.stderr.readline().split()[-1]
    finally:
        process.kill()
        process.communicate()


def test_a_failover_and_back_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By REPLICAOF, with every connection left open."""
    model = write_smallest(tmp_path / "smallest")
    env = {
        "MASKQ_LEASE_S": str(LEASE_S),
        "MASKQ_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
        "MASKQ_WEBHOOK_SECRET": SECRET,
    }
    with Stack(workers=0, pinned=True, model=str(model), env=env) as stack:
        second = TunedRedis(tmp_path / "second", password=stack.redis.password)
        try:
            second.start()
            follow(second, stack.redis)
            with Switch(("127.0.0.1", stack.redis.port)) as switch:
                url = f"redis://:{stack.redis.password}@127.0.0.1:{switch.port}/0"
                there = {"MASKQ_REDIS_URL": url}
                speak_to(monkeypatch, stack, there)
                workers = stack.start_workers(2, there)
                pids = [worker.pid for worker in workers]
                with (
                    Client.from_env() as client,
                    receiver() as hook,
                    webhooks_process(stack, there) as posting,
                ):
                    fleet = Fleet(stack, client)
                    place = client.submit(IMAGE).refresh().request.image_uri
                    with Submitter(client, place, hook) as load:
                        time.sleep(4)
                        swap(stack.redis, second, lambda: switch.lead_to(second.port))
                        time.sleep(6)
                        swap(second, stack.redis, lambda: switch.lead_to(stack.redis.port))
                        time.sleep(4)
                    all_ended_well(fleet, load.ids)
                    end = time.monotonic() + 30
                    while len(client.deliveries(state="pending", limit=1)):
                        assert time.monotonic() < end
                        time.sleep(0.2)
                    attempts = Counter(one.attempt for one in fleet.records())
                    assert [worker.pid for worker in workers] == pids
                    assert all(worker.child.alive for worker in (*workers, posting))
                    delivered = len(client.deliveries(state="delivered", limit=10_000))
                    assert delivered == len(load.ids)
                    print(
                        f"\nfailover and back: {len(load.ids)} accepted, {load.refused} refused on the "
                        f"way, attempts {dict(attempts)}, {delivered} webhooks"
                    )
        finally:
            second.stop()


def test_workers_are_killed_while_each_process_is_the_user_of_its_role(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_smallest(tmp_path / "smallest")
    env = {"MASKQ_LEASE_S": str(LEASE_S)}
    with AclStack(workers=2, pinned=True, webhooks=True, model=str(model), env=env) as stack:
        speak_to(monkeypatch, stack)
        with Client.from_env() as client:
            fleet = Fleet(stack, client)
            place = client.submit(IMAGE).refresh().request.image_uri
            with Submitter(client, place) as load:
                for kill in range(6):
                    time.sleep(2)
                    fleet.kill_and_replace(stack.workers[kill % 2])
            all_ended_well(fleet, load.ids)
            assert load.refused == 0
            print(f"\n6 kills under ACL users: {len(load.ids)} accepted, all succeeded")


def test_tls_everywhere_over_restarts_of_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_smallest(tmp_path / "smallest")
    authority = Authority(tmp_path / "ca")
    env = {"MASKQ_LEASE_S": str(LEASE_S)}
    with (
        Stack(workers=0, pinned=True, model=str(model), env=env) as stack,
        TlsProxy(stack.redis.port, authority.certificate("localhost")) as proxy,
    ):
        there = {
            "MASKQ_REDIS_URL": f"rediss://:{stack.redis.password}@localhost:{proxy.port}/0",
            "MASKQ_REDIS_CA_FILE": str(authority.file),
        }
        speak_to(monkeypatch, stack, there)
        workers = stack.start_workers(2, there)
        with (
            Client.from_env() as client,
            webhooks_process(stack, there) as posting,
            gateway(tmp_path, stack, there) as healthz,
        ):
            fleet = Fleet(stack, client)
            place = client.submit(IMAGE).refresh().request.image_uri
            with Submitter(client, place) as load:
                for _ in range(3):
                    time.sleep(2)
                    stack.kill_redis()
                    time.sleep(1)
                    stack.restart_redis()
                time.sleep(2)
            all_ended_well(fleet, load.ids)
            assert all(worker.child.alive for worker in (*workers, posting))
            assert _answers(healthz)
            assert celery_result(f"{there['MASKQ_REDIS_URL']}", authority.file, place) == "64"
        assert proxy.seen.in_clear == []
        print(
            f"\nTLS, 3 restarts: {len(load.ids)} accepted, {proxy.seen.connections} connections, "
            f"none in clear"
        )


CALLER = """
import os
from celery import Celery
app = Celery("shop", broker=os.environ["URL"], backend=os.environ["URL"])
sent = app.send_task("maskq.segment", args=[{"image_uri": os.environ["IMAGE"]}], queue="maskq")
print(sent.get(timeout=60)["width"])
"""


def celery_result(url: str, ca: Path, image: str) -> str:
    said = subprocess.run(
        [sys.executable, "-c", CALLER],
        env=os.environ | {"URL": f"{url}?ssl_cert_reqs=required&ssl_ca_certs={ca}", "IMAGE": image},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


@contextmanager
def gateway(directory: Path, stack: Stack, env: Mapping[str, str]) -> Iterator[str]:
    """The URL that says whether it is well, which asks Redis."""
    rules = directory / "rules.toml"
    rules.write_text('[[rule]]\nname = "scans"\nbucket = "photos"\n')
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("maskq")),
        *("gateway", "--port", str(port), "--rules", str(rules)),
    ]
    child = Child(
        "gateway",
        command,
        log=directory / "gateway.log",
        env=os.environ
        | stack.environment
        | dict(env)
        | {"MASKQ_TRIGGER_TOKENS": "a-token-of-the-tests"},
    )
    child.start()
    url = f"http://127.0.0.1:{port}/healthz"
    try:
        child.wait_ready(lambda: _answers(url), 30)
        yield url
    finally:
        child.stop(10)


def _answers(url: str) -> bool:
    with urllib3.PoolManager(retries=False, timeout=20) as pool, suppress(HTTPError):
        return pool.request("GET", url).status == 200
    return False
