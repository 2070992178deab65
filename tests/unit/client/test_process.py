"""What commands that stay up share: stop requests, health files, stop times."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml
from support.waiting import until

from maskq.process.health import HealthFile, Heartbeat
from maskq.process.stop_signal import StopSignal
from maskq.process.stop_times import GATEWAY_DRAIN_S, WEBHOOKS_DRAIN_S, StopTimes

ROOT = Path(__file__).parents[3]


class TestStopSignal:
    def test_first_signal_asks_to_stop_and_second_to_stop_at_once(self) -> None:
        stop = StopSignal()
        before = signal.getsignal(signal.SIGTERM)
        with stop.listening():
            os.kill(os.getpid(), signal.SIGTERM)
            assert (stop.wait(30), stop.requested(), stop.at_once()) == (True, True, False)
            os.kill(os.getpid(), signal.SIGINT)
            until(stop.at_once)
        assert signal.getsignal(signal.SIGTERM) is before

    def test_every_waiting_thread_wakes(self) -> None:
        stop = StopSignal()
        threads = [threading.Thread(target=stop.wait, args=(30,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        stop.request()
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive()

    def test_wait_returns_false_when_nobody_asks(self) -> None:
        assert not StopSignal().wait(0.01)

    def test_ignored_sighup_stays_ignored(self) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            stop = StopSignal()
            with stop.listening([signal.SIGHUP]):
                os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested()
        finally:
            signal.signal(signal.SIGHUP, before)


class TestHealth:
    def test_file_is_fresh_between_touch_and_remove(self, tmp_path: Path) -> None:
        health = HealthFile(tmp_path / "health")
        assert not health.is_fresh()
        health.touch()
        assert health.is_fresh()
        os.utime(tmp_path / "health", (0, 0))
        assert not health.is_fresh()
        health.remove()
        health.remove()
        assert not (tmp_path / "health").exists()

    def test_without_a_path_nothing_is_touched(self) -> None:
        health = HealthFile(None)
        health.touch()
        health.remove()
        assert not health
        assert not health.is_fresh()

    def test_heartbeat_touches_until_signs_of_life_stop(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("maskq.process.health._EVERY_S", 0.01)
        monkeypatch.setattr("maskq.process.health._STUCK_S", 0.3)
        file = tmp_path / "health"
        with Heartbeat(HealthFile(file)) as heartbeat:
            heartbeat.still_alive()  # not enough for the first time
            assert not file.exists()
            heartbeat.alive()
            first = file.stat().st_mtime_ns
            end = time.monotonic() + 5
            while file.stat().st_mtime_ns == first:
                assert time.monotonic() < end
            time.sleep(0.5)
            last = file.stat().st_mtime_ns
            time.sleep(0.1)
            assert file.stat().st_mtime_ns == last
        assert not file.exists()


class TestStopTimes:
    def test_each_limit_is_longer_than_the_one_inside_it(self) -> None:
        for drain_s in (0.0, 30.0, 600.0):
            times = StopTimes(drain_s)
            assert drain_s < times.kill_after_s < times.container_s

    def test_processes_without_a_model_stop_within_the_default(self) -> None:
        assert max(WEBHOOKS_DRAIN_S, GATEWAY_DRAIN_S) < StopTimes().kill_after_s

    def test_compose_leaves_each_role_its_time(self) -> None:
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        grace = [
            one["stop_grace_period"] for one in services.values() if "stop_grace_period" in one
        ]
        assert len(grace) >= 4
        assert set(grace) == {"1m${MASKQ_DRAIN_S:-30}s"}
        assert StopTimes().container_s == 60 + 30
        assert StopTimes(600.0).container_s == 60 + 600
