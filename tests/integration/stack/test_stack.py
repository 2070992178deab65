"""The one-machine stack, with real processes. A stand-in takes the real worker's place."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from support.process_tree import alive, descendants
from support.waiting import until

from maskq_standalone import ports
from maskq_standalone.children.child import ChildError
from maskq_standalone.commands import up
from maskq_standalone.stack import Stack

WORKER = """
import os, pathlib, signal, subprocess, sys, time
if os.environ.get("BROKEN"):
    sys.exit("the model cannot be loaded: it is broken")
subprocess.Popen(["sleep", "600"])  # something a worker may have started
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    pathlib.Path(os.environ["MASKQ_HEALTH_FILE"]).touch()
    time.sleep(0.05)
"""
WORKER_COMMAND = [sys.executable, "-c", WORKER]
STACK = """
import pathlib, sys, time
from maskq_standalone.stack import Stack
with Stack(pathlib.Path(sys.argv[1]), pinned=True, worker_command=[sys.executable, "-c", sys.argv[2]]):
    print("up", flush=True)
    time.sleep(600)
"""
UP = """
import pathlib, sys
from maskq_standalone.servers import redis
from maskq_standalone.commands.up import run
directory = pathlib.Path(sys.argv[1])
binary = redis.find(pinned=True).path
worker = [sys.executable, "-c", sys.argv[2]]
sys.exit(run(directory, redis_binary=binary, worker_command=worker))
"""


@pytest.fixture
def lines() -> list[str]:
    return []


@contextlib.contextmanager
def running(code: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that runs a stack; killed at the end if it still runs."""
    command = [sys.executable, "-c", code, str(directory), WORKER]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class TestDirectory:
    def test_survives_stop_and_start(self, tmp_path: Path) -> None:
        with Stack(tmp_path, workers=0, pinned=True) as first:
            put(first, "kept")
            before = first.environment
            pids = set(descendants(os.getpid()))
        assert not alive(pids & {first.redis.child.pid, first.s3.child.pid})
        with Stack(tmp_path, workers=0, pinned=True) as second:
            assert get(second, "kept") == (b"kept", b"kept")
            same = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
            assert [before[name] for name in same] == [second.environment[name] for name in same]
            assert first.redis.password == second.redis.password
        for name in ("credentials.json", "lock"):
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o600

    def test_second_stack_is_refused(self, stack: Stack) -> None:
        with pytest.raises(ChildError, match=f"in use: a stack runs on it .process {os.getpid()}"):
            Stack(stack.directory, workers=0, pinned=True).start()
        with redis.Redis.from_url(stack.redis.url) as client:
            assert client.ping()  # the refusal did not stop the first

    def test_temporary_one_is_removed(self) -> None:
        with Stack(workers=0, pinned=True) as temporary:
            assert temporary.directory.is_dir()
        assert not temporary.directory.exists()

    def test_unreadable_credentials(self, tmp_path: Path) -> None:
        (tmp_path / "credentials.json").write_text("{")
        with pytest.raises(ChildError, match=r"credentials\.json cannot be read"):
            Stack(tmp_path, workers=0, pinned=True).start()


def put(stack: Stack, key: str) -> None:
    with redis.Redis.from_url(stack.redis.url) as client:
        client.set(key, key)
        client.execute_command("WAITAOF", 1, 0, 2000)  # on disk, not only within the second
    stack.s3.client().put_object(Bucket="maskq", Key=key, Body=key.encode())


def get(stack: Stack, key: str) -> tuple[bytes, bytes]:
    with redis.Redis.from_url(stack.redis.url) as client:
        value = client.get(key)
    return value, stack.s3.client().get_object(Bucket="maskq", Key=key)["Body"].read()


class TestCrashes:
    def test_servers_killed_and_restarted(self, tmp_path: Path) -> None:
        with Stack(tmp_path, workers=0, pinned=True) as stack:
            put(stack, "before")
            before = stack.environment
            stack.kill_redis()
            stack.kill_s3()
            assert not ports.listens(stack.redis.port)
            stack.restart_redis()
            stack.restart_s3()
            assert stack.environment == before
            assert get(stack, "before") == (b"before", b"before")

    def test_check_restarts_what_died(self, tmp_path: Path, lines: list[str]) -> None:
        with Stack(
            tmp_path, pinned=True, worker_command=WORKER_COMMAND, report=lines.append
        ) as stack:
            put(stack, "before")
            started = set(descendants(stack.workers[0].pid))
            for pid in (stack.redis.child.pid, stack.s3.child.pid, stack.workers[0].pid):
                os.kill(pid, signal.SIGKILL)
            lines.clear()

            def recovered() -> bool:
                stack.check()
                return len(lines) == 6

            until(recovered)
            assert get(stack, "before") == (b"before", b"before")
            assert started
            assert not alive(started)  # what the dead worker had started
        died = [line.split()[0] for line in lines if "was ended by SIGKILL" in line]
        back = [line.split()[0] for line in lines if "ready again" in line]
        assert (sorted(died), sorted(back)) == (["redis", "s3", "worker-1"],) * 2

    def test_killed_parent_leaves_nothing(self, tmp_path: Path) -> None:
        with running(STACK, tmp_path) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            pids = set(descendants(process.pid))
            assert len(pids) >= 7  # three children, their guards, the worker's own child
            process.kill()
            process.wait()
            until(lambda: not alive(pids))
        with Stack(tmp_path, workers=0, pinned=True):
            pass  # and the directory can be used again

    def test_directory_of_a_killed_stack_is_waited_for(self, tmp_path: Path) -> None:
        with running(STACK, tmp_path) as process:
            assert process.stdout is not None
            process.stdout.readline()
            put_by = json.loads((tmp_path / "credentials.json").read_text())
            process.kill()
            process.wait()
            with Stack(tmp_path, workers=0, pinned=True) as stack:
                assert stack.redis.password == put_by["redis_password"]


DRAINING_WORKER = """
import os, pathlib, signal, sys, time
health = pathlib.Path(os.environ["MASKQ_HEALTH_FILE"])
def drain(*_):
    time.sleep(float(os.environ["MASKQ_DRAIN_S"]))
    pathlib.Path(os.environ["DRAINED"]).touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, drain)
while True:
    health.touch()
    time.sleep(0.05)
"""


class TestStop:
    @pytest.fixture(autouse=True)
    def _close_fast(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("maskq.process.stop_times._CLOSING_S", 1.0)

    def test_waits_for_a_worker_that_drains(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("maskq.process.stop_times._CLOSING_S", 10.0)
        # Given a worker that needs its whole drain time to stop
        env = {"MASKQ_DRAIN_S": "1.5", "DRAINED": str(tmp_path / "drained")}
        command = [sys.executable, "-c", DRAINING_WORKER]
        with Stack(tmp_path, pinned=True, env=env, worker_command=command) as stack:
            (worker,) = stack.workers

        # When the stack has stopped, then the worker has ended by itself
        assert worker.returncode == 0
        assert (tmp_path / "drained").exists()

    def test_kills_a_worker_that_takes_longer(self, tmp_path: Path) -> None:
        deaf = WORKER.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")
        command = [sys.executable, "-c", deaf]
        env = {"MASKQ_DRAIN_S": "0.1"}
        with Stack(tmp_path, pinned=True, env=env, worker_command=command) as stack:
            (worker,) = stack.workers
            began = time.monotonic()
        assert worker.returncode == -signal.SIGKILL
        assert 1.1 <= time.monotonic() - began < 11


class TestWorkers:
    def test_are_ready_and_see_the_settings(self, tmp_path: Path, lines: list[str]) -> None:
        with Stack(
            tmp_path,
            workers=2,
            pinned=True,
            env={"MASKQ_LEASE_S": "3"},
            worker_command=WORKER_COMMAND,
            report=lines.append,
        ) as stack:
            third = stack.start_worker({"MASKQ_LEASE_S": "4"})
            pids = set(descendants(os.getpid()))
            seen = [environment_of(worker.pid) for worker in stack.workers]
            assert [env["MASKQ_LEASE_S"] for env in seen] == ["3", "3", "4"]
            assert all(env["MASKQ_REDIS_URL"] == stack.redis.url for env in seen)
            assert third is stack.workers[2]
        assert not alive(pids & {worker.pid for worker in stack.workers})
        assert [line.split()[0] for line in lines] == [
            *("redis", "s3", "worker-1", "worker-2", "worker-3")
        ]

    def test_that_cannot_start(self, tmp_path: Path) -> None:
        stack = Stack(tmp_path, pinned=True, env={"BROKEN": "1"}, worker_command=WORKER_COMMAND)
        with pytest.raises(ChildError) as raised:
            stack.start()
        said = "worker-1 could not start: exited with code 1: the model cannot be loaded"
        assert str(raised.value).startswith(said)
        assert not stack.redis.child.alive
        assert not stack.s3.child.alive

    def test_with_wrong_settings_stays_down(self, tmp_path: Path, lines: list[str]) -> None:
        worker = "import os, sys, time, pathlib\n"
        worker += "pathlib.Path(os.environ['MASKQ_HEALTH_FILE']).touch(); time.sleep(3)\n"
        worker += "print('MASKQ_DEVICE: no such device'); sys.exit(os.EX_CONFIG)"
        with Stack(
            tmp_path,
            pinned=True,
            worker_command=[sys.executable, "-c", worker],
            report=lines.append,
        ) as stack:
            until(lambda: not stack.workers[0].child.alive)
            stack.check()
            stack.check()
        assert lines[-1].startswith("worker-1 exited with code 78: MASKQ_DEVICE: no such device")
        assert lines[-1].endswith("it stays down")


def environment_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


class TestUp:
    def test_until_sigterm(self, tmp_path: Path) -> None:
        env_file = tmp_path / "env"
        with running(UP, tmp_path) as process:
            until(env_file.exists, within_s=60)
            assert env_file.stat().st_mode & 0o777 == 0o600
            settings = dict(
                line.split("=", 1) for line in shlex.split(env_file.read_text(), comments=True)
            )
            with redis.Redis.from_url(settings["MASKQ_REDIS_URL"]) as client:
                assert client.ping()
            pids = set(descendants(process.pid))
            process.terminate()
            _, said = process.communicate(timeout=20)
        assert process.returncode == 0
        assert not alive(pids)
        assert not env_file.exists()
        ready = [line.split()[0] for line in said.splitlines() if " ready on " in line]
        assert ready == ["redis", "s3"]
        assert "maskq submit" in said

    def test_that_cannot_start_is_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").touch()
        assert up.run(tmp_path / "file", workers=0) == 1
        assert up.run(tmp_path, workers=0, env_file=tmp_path / "absent" / "env") == 1
        said = capsys.readouterr().err.splitlines()
        assert said == [
            f"maskq up: {tmp_path}/file: File exists",
            f"maskq up: cannot write the settings: {tmp_path}/absent is not a directory",
        ]

    def test_goes_on_without_its_terminal_under_nohup(self, tmp_path: Path) -> None:
        with running(
            f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{UP}", tmp_path
        ) as up:
            until((tmp_path / "env").exists, within_s=60)
            up.send_signal(signal.SIGHUP)
            time.sleep(1.0)
            assert up.poll() is None
            up.terminate()
            up.communicate(timeout=20)
        assert up.returncode == 0

    def test_second_signal_does_not_wait_for_a_worker(self, tmp_path: Path) -> None:
        deaf = WORKER.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")
        command = [sys.executable, "-c", UP, str(tmp_path), deaf]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                until((tmp_path / "env").exists, within_s=60)
                process.send_signal(signal.SIGINT)
                time.sleep(0.7)
                assert process.poll() is None  # it drains
                process.send_signal(signal.SIGINT)
                assert process.wait(timeout=30) == 0
            finally:
                process.kill()  # else a failure would wait for it, and leave it behind
