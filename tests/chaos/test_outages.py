"""Redis and S3 go away and come back; what submit returned is not lost."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from chaos.conftest import IMAGE, Fleet, fleet_of
from chaos.half_open import Proxy

from maskq import Client, JobStatus, MaskqError

S3_DOWN_S = 60.0


def submit_whatever_happens(fleet: Fleet, place: str, count: int) -> list[str]:
    """The ids of what was accepted; what was refused is the caller's to send again."""
    accepted = []
    for _ in range(count):
        try:
            accepted.append(fleet.client.submit(place).id)
        except MaskqError:
            time.sleep(0.1)
    return accepted


def test_s3_is_away_for_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fleet_of(tmp_path, monkeypatch, workers=2) as fleet:
        place = fleet.client.submit(IMAGE).refresh().request.image_uri
        ids = submit_whatever_happens(fleet, place, 300)
        fleet.wait_until(lambda: sum(one.ended for one in fleet.records()) > 30, 60)
        fleet.stack.kill_s3()
        went = time.monotonic()
        time.sleep(3)
        ids += submit_whatever_happens(fleet, place, 100)  # the queue is open
        at_once = Counter(one.attempt for one in fleet.records())
        time.sleep(S3_DOWN_S - (time.monotonic() - went))
        claimed_meanwhile = Counter(one.attempt for one in fleet.records()) - at_once
        fleet.stack.restart_s3()
        back = time.monotonic()
        fleet.wait_until(lambda: all(one.ended for one in fleet.records()), 120)
        records = fleet.records()
        assert Counter(one.status for one in records) == {JobStatus.SUCCEEDED: len(ids) + 1}
        assert Counter(one.charges for one in records) == {0: len(records)}
        fleet.one_terminal_event_each([one.id for one in records])
        attempts = dict(sorted(Counter(one.attempt for one in records).items()))
        print(
            f"\nS3 away {S3_DOWN_S:g} s, {len(records)} jobs, all done {time.monotonic() - back:.0f} s"
            f" after; {attempts=}, attempts begun while it was away: {dict(claimed_meanwhile)}"
        )
        # Claiming stopped: nothing wore out its attempts against a store that was not there.
        assert max(one.attempt for one in records) <= 4


def test_redis_is_killed_five_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fleet_of(tmp_path, monkeypatch, workers=2) as fleet:
        place = fleet.client.submit(IMAGE).refresh().request.image_uri
        ids: list[str] = []
        for _ in range(5):
            ids += submit_whatever_happens(fleet, place, 80)
            time.sleep(1.0)
            fleet.stack.kill_redis()
            time.sleep(0.5)
            fleet.stack.restart_redis()
        fleet.wait_until(lambda: all(one.ended for one in fleet.records()), 120)
        by_id = {one.id: one for one in fleet.records()}
        lost = [job_id for job_id in ids if job_id not in by_id]
        assert lost == []
        assert Counter(one.status for one in by_id.values()) == {JobStatus.SUCCEEDED: len(by_id)}
        fleet.one_terminal_event_each(list(by_id))
        assert all(worker.child.alive for worker in fleet.stack.workers)
        print(f"\nRedis killed 5 times, {len(ids)} accepted, {len(lost)} lost")


def test_what_was_durable_survives_the_loss_of_the_file_s_last_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fleet_of(tmp_path, monkeypatch, workers=0) as fleet:
        worker = fleet.stack.start_worker()
        place = fleet.client.submit(IMAGE).refresh().request.image_uri
        worker.child.terminate()
        worker.child.wait_ended(60)
        durable = [fleet.client.submit(place, durable=True).id for _ in range(20)]
        (log,) = fleet.stack.directory.rglob("*.incr.aof")
        on_disk = log.stat().st_size
        hasty = [fleet.client.submit(place).id for _ in range(20)]
        fleet.stack.kill_redis()

        # A power failure: what was written after the last fsync never reached the disk.
        with log.open("r+b") as file:
            file.truncate(on_disk)
        fleet.stack.restart_redis()

        left = {one.id for one in fleet.records()}
        assert set(durable) <= left
        assert not set(hasty) & left  # that is what durable=True is for
        fleet.stack.start_worker()
        fleet.wait_until(lambda: all(one.ended for one in fleet.records()), 60)
        assert {one.status for one in fleet.records()} == {JobStatus.SUCCEEDED}


def test_connections_that_are_open_and_dead_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall that forgets, a host that vanishes: nobody is told."""
    with fleet_of(tmp_path, monkeypatch, workers=0) as fleet:
        address = urlsplit(fleet.stack.redis.url)
        assert address.hostname
        assert address.port
        with Proxy((address.hostname, address.port)) as proxy:
            url = fleet.stack.redis.url.replace(f":{address.port}", f":{proxy.port}")
            fleet.stack.start_workers(2, {"MASKQ_REDIS_URL": url})
            with Client.from_env(redis_url=url) as client:
                place = client.submit(IMAGE).refresh().request.image_uri
                ids = [client.submit(place).id for _ in range(100)]
                waited = client.submit(place, priority="low")
                proxy.swallow_what_is_open()
                silent = time.monotonic()
                client.get(ids[0])
                client_back_s = time.monotonic() - silent
                waited.wait(timeout=60)
                fleet.wait_until(lambda: all(one.ended for one in fleet.records()), 60)
        records = fleet.records()
        assert Counter(one.status for one in records) == {JobStatus.SUCCEEDED: 102}
        fleet.one_terminal_event_each([one.id for one in records])
        print(
            f"\nclient back after {client_back_s:.1f} s, all jobs done after "
            f"{time.monotonic() - silent:.1f} s"
        )
