"""The primary becomes a replica and its connections stay open: clients go where the primary is now."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from support.answering import answering
from support.redis_servers import Sentinel, TunedRedis, follow, running, swap
from support.switch import Switch
from support.tls import Authority, TlsProxy
from support.waiting import until

from maskq import AsyncClient, Client, JobStatus, MaskqError
from maskq.contract import FailureCode
from maskq.contract.ids import new_token
from maskq.errors import StoreUnavailable
from maskq.ledger import AsyncLedger, Ledger, RedisUrl, calls
from maskq.ledger.calls import Call
from maskq.ledger.connections.pools import Primary
from maskq.settings import Settings

MODEL, PREFIX = "demo", "failover"
URI = "s3://photos/a.png"


@dataclass
class Pair:
    """Two servers, and the address under which one of them is known."""

    first: TunedRedis
    second: TunedRedis
    switch: Switch

    @property
    def url(self) -> str:
        return f"redis://:{self.first.password}@127.0.0.1:{self.switch.port}/0"

    @property
    def settings(self) -> Settings:
        return Settings(redis_url=self.url, key_prefix=PREFIX)  # type: ignore[arg-type]

    def fail_over(self) -> None:
        swap(self.first, self.second, lambda: self.switch.lead_to(self.second.port))

    def fail_back(self) -> None:
        swap(self.second, self.first, lambda: self.switch.lead_to(self.first.port))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    first = TunedRedis(tmp_path / "first", password="secret")
    second = TunedRedis(tmp_path / "second", password="secret")
    with running(first, second), Switch(("127.0.0.1", first.port)) as switch:
        follow(second, first)
        served = Ledger(first.url, PREFIX)
        served.run(calls.register_model(MODEL, {}))
        served.close()
        yield Pair(first, second, switch)


def test_a_client_goes_on_with_the_new_primary_both_ways(pair: Pair) -> None:
    with Client(pair.settings) as client:
        ids = [client.submit(URI).id]
        for change in (pair.fail_over, pair.fail_back):
            change()
            ids.append(client.submit(URI, idempotency_key=str(change)).id)
            assert client.submit(URI, durable=True).status is JobStatus.QUEUED
            assert client.get(ids[-1]).status is JobStatus.QUEUED
        assert client.get(ids[0]).cancel()
        kinds = {record.id: record.status for record in client.list(limit=100).records}
        assert {kinds[job_id] for job_id in ids[1:]} == {JobStatus.QUEUED}


def test_an_async_client_goes_on_with_the_new_primary(pair: Pair) -> None:
    async def main() -> None:
        async with AsyncClient(pair.settings) as client:
            job = await client.submit(URI)
            await asyncio.to_thread(pair.fail_over)
            again = await client.submit(URI)
            assert await job.cancel()
            assert (await client.get(again.id)).status is JobStatus.QUEUED

    asyncio.run(main())


def test_who_waits_reads_the_end_from_the_new_primary(pair: Pair) -> None:
    """Its own connections are open, idle and lead to a server that knows nothing new."""
    with Client(pair.settings) as client:
        job = client.submit(URI)
        ended: list[Any] = []

        def wait() -> None:
            try:
                job.wait(timeout=30)
            except MaskqError as error:
                ended.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        pair.fail_over()
        with pair.first.admin() as cut_off:  # it hears of nothing that happens from now on
            cut_off.replicaof("127.0.0.1", 1)
        ledger = Ledger(pair.second.url, PREFIX)
        ledger.run(calls.cancel(job.id))
        ledger.close()
        waiting.join(20)
        assert [getattr(error, "code", None) for error in ended] == [FailureCode.CANCELED], ended


def test_readers_of_events_go_on_with_the_new_primary(pair: Pair) -> None:
    with Client(pair.settings) as client:
        first = client.submit(URI)
        seen: dict[str, list[str]] = {"alone": [], "group": []}
        enough = threading.Event()

        def read(name: str, **how: Any) -> None:
            for event in client.events(since="0", idle=15, **how):
                seen[name].append(event.subject)
                if enough.is_set():
                    return

        readers = [
            threading.Thread(target=read, args=("alone",)),
            threading.Thread(target=read, args=("group",), kwargs={"group": "billing"}),
        ]
        for reader in readers:
            reader.start()
        until(lambda: seen["alone"] and seen["group"])
        pair.fail_over()
        last = client.submit(URI)
        until(lambda: last.id in seen["alone"] and last.id in seen["group"])
        enough.set()
        client.submit(URI)
        for reader in readers:
            reader.join(20)
        assert seen["alone"].count(first.id) == seen["group"].count(first.id) == 1


@pytest.mark.parametrize("what", ["a restart", "a failover"])
def test_leases_that_ran_out_meanwhile_are_not_reaped(pair: Pair, what: str) -> None:
    """Too short for the rule of gaps, and seen without INFO: the server does not know the script."""
    ledger = Ledger(pair.url, PREFIX)
    with Client(pair.settings) as client:
        job = client.submit(URI)
        claim = calls.claim(MODEL, new_token(), owner="me", lease_s=0.5, job_id=job.id)
        sweep = calls.sweep(lease_s=1)
        ledger.run(sweep)
        assert ledger.run(claim).job_id == job.id
        ledger.run_many([calls.touch(), calls.fsync(4)])
        # When Redis is away until the lease has run out
        if what == "a restart":
            pair.first.kill()
            pair.first.start()
        else:
            pair.fail_over()
        time.sleep(0.6)
        # Then its holder has one lease to renew, and no more than one
        assert ledger.run(sweep).reaped == 0
        until(lambda: ledger.run(sweep).reaped == 1, every_s=0.5)
    ledger.close()


def test_a_sentinel_names_the_primary_and_its_successor(tmp_path: Path) -> None:
    # Given a primary and a replica that a Sentinel with a password of its own watches
    first = TunedRedis(tmp_path / "first", "masterauth secret", password="secret")
    second = TunedRedis(tmp_path / "second", "masterauth secret", password="secret")
    sentinel = Sentinel(tmp_path / "sentinel", first, "requirepass watched")
    with running(first, second):
        follow(second, first)
        with running(sentinel):
            url = RedisUrl.parse(
                f"sentinel://:secret@127.0.0.1:{sentinel.port};127.0.0.1:1/2"
                f"?master_name=maskq-test&sentinel_password=watched"
            )
            ledger = Ledger(url, PREFIX)
            ledger.run(calls.touch())
            until(lambda: _replicas(sentinel) == 1, within_s=20)
            # When the primary dies
            first.kill()
            # Then calls fail for a while, and go on with the one that was promoted
            until(lambda: _goes_through(ledger), within_s=90)
            with second.admin() as admin:
                admin.select(2)
                assert admin.exists(f"{PREFIX}:durable")
            ledger.close()


def test_sentinels_and_redis_are_asked_with_tls(tmp_path: Path, pair: Pair) -> None:
    """The wheel's server has no TLS of its own: proxies have, one before what stands for a Sentinel."""
    authority = Authority(tmp_path / "ca")
    certificate = authority.certificate("localhost")
    with TlsProxy(pair.first.port, certificate) as redis_proxy:
        port_said = str(redis_proxy.port)
        named = f"*2\r\n$9\r\nlocalhost\r\n${len(port_said)}\r\n{port_said}\r\n".encode()
        with (
            answering({b"SENTINEL": named, b"PING": b"+PONG\r\n"}) as port,
            TlsProxy(port, certificate) as asked,
        ):
            url = RedisUrl.parse(
                f"sentinels://:secret@localhost:{asked.port}/1?master_name=mine", authority.file
            )
            ledger = Ledger(url, PREFIX)
            ledger.run(calls.touch())
            ledger.close()

            async def ask() -> None:
                awaited = AsyncLedger(url, PREFIX)
                await awaited.run(calls.touch())
                await awaited.close()

            asyncio.run(ask())
            for proxy in (asked, redis_proxy):
                assert proxy.seen.connections >= 2
                assert proxy.seen.in_clear == []


def _goes_through(ledger: Ledger) -> bool:
    try:
        ledger.run(calls.touch())
    except StoreUnavailable:
        return False
    return True


def _replicas(sentinel: Sentinel) -> int:
    with redis.Redis(port=sentinel.port, password="watched", protocol=2) as asked:
        return int(asked.sentinel_master("maskq-test")["num-slaves"])


@pytest.mark.parametrize(
    "said",
    [
        "LOADING Redis is loading the dataset in memory",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "NOREPLICAS Not enough good replicas to write.",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "CLUSTERDOWN Hash slot not served",
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        "READONLY You can't write against a read only replica.",
        "ERR WAITAOF cannot be used with replica instances. Please also note that writes are local.",
        "ERR max number of clients reached",
    ],
)
def test_what_passes_is_an_outage(said: str) -> None:
    with answering({b"ASKED": f"-{said}\r\n".encode()}) as port:
        ledger = Ledger(f"redis://127.0.0.1:{port}", PREFIX)
        with pytest.raises(StoreUnavailable) as refused:
            ledger.run(Call(None, ("ASKED",), str))
        assert refused.value.code is FailureCode.STORE_UNAVAILABLE
        ledger.close()


def test_what_stays_is_none() -> None:
    primary = Primary(RedisUrl.parse("redis://h"))
    for said in (
        "WRONGTYPE Operation against",
        "BUSYGROUP Consumer Group name",
        "ERR syntax error",
    ):
        assert primary.interruption(redis.ResponseError(said)) is None
    assert primary.generation == 0
