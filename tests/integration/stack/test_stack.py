"""The one-machine stack, with real processes. A stand-in takes the real worker's place."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
import redis
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError
from redis.backoff import NoBackoff
from redis.retry import Retry
from support.waiting import stays, until

from maskq.process.stop_signal import StopSignal
from maskq_standalone import ports
from maskq_standalone.children.child import Child, ChildError
from maskq_standalone.commands import up
from maskq_standalone.servers.redis import RedisBinary, RedisServer, find
from maskq_standalone.servers.s3 import S3Server
from maskq_standalone.servers.s3_process import Authorizer
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


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Without workers; shared by the tests that leave it as it is."""
    directory = tmp_path_factory.mktemp("stack")
    with Stack(directory, workers=0, pinned=True) as running:
        yield running


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


def eventually(true: Callable[[], bool], within_s: float = 8.0) -> bool:
    until(true, within_s=within_s)
    return True


def processes() -> dict[int, int]:
    """Parent by process id; zombies, which only wait for init, left out."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(folder.name)] = int(parent)
    return found


def descendants(pid: int) -> set[int]:
    parents = processes()
    found: set[int] = set()
    new = {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def alive(pids: set[int]) -> set[int]:
    return pids & set(processes())


def client_with(stack: Stack, key: str, secret: str, **config: str) -> object:
    return boto3.client(
        "s3",
        endpoint_url=stack.s3.endpoint_url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, **config),
    )


class TestRedis:
    def test_answers_with_its_password(self, stack: Stack) -> None:
        with redis.Redis.from_url(stack.environment["MASKQ_REDIS_URL"]) as client:
            assert client.ping()
            kept = client.config_get("appendonly", "appendfsync", "maxmemory-policy", "bind")
        assert kept == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
        }

    def test_refuses_without_password(self, stack: Stack) -> None:
        with (
            redis.Redis(port=stack.redis.port, retry=Retry(NoBackoff(), 0)) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()

    def test_password_is_in_no_command_line(self, stack: Stack) -> None:
        shown = b"".join(
            Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(os.getpid())
        )
        assert shown
        assert stack.redis.password.encode() not in shown


class TestS3:
    def test_put_and_get(self, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in stack.environment.items():
            monkeypatch.setenv(name, value)
        # A session of its own: the default one has the credentials of whichever test used it first.
        client = boto3.Session().client(
            "s3", endpoint_url=stack.environment["MASKQ_S3_ENDPOINT_URL"]
        )
        client.put_object(Bucket="maskq", Key="a b/é+.bin", Body=b"pixels", Metadata={"k": "v"})
        answer = client.get_object(Bucket="maskq", Key="a b/é+.bin")
        assert (answer["Body"].read(), answer["Metadata"]) == (b"pixels", {"k": "v"})

    @pytest.mark.parametrize(
        ("key", "secret", "code"),
        [
            ("AKIAUNKNOWN", None, "InvalidAccessKeyId"),
            (None, "wrong", "SignatureDoesNotMatch"),
            ("test", "test", "InvalidAccessKeyId"),  # the emulator's own way in
            ("000000000000", "any", "InvalidAccessKeyId"),  # and its other one
        ],
    )
    def test_refuses_other_credentials(
        self, stack: Stack, key: str | None, secret: str | None, code: str
    ) -> None:
        client = client_with(
            stack, key or stack.s3.access_key_id, secret or stack.s3.secret_access_key
        )
        with pytest.raises(ClientError, match=code):
            client.list_objects_v2(Bucket="maskq")

    @pytest.mark.parametrize("secret", [None, "wrong"])
    def test_presigned(self, stack: Stack, secret: str | None) -> None:
        stack.s3.client().put_object(Bucket="maskq", Key="presigned", Body=b"pixels")
        signer = client_with(
            stack,
            stack.s3.access_key_id,
            secret or stack.s3.secret_access_key,
            signature_version="s3v4",
        )
        url = signer.generate_presigned_url(
            "get_object", Params={"Bucket": "maskq", "Key": "presigned"}
        )
        if secret is None:
            assert urllib3.request("GET", url).data == b"pixels"
        else:
            assert urllib3.request("GET", url).status == 403

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/_ministack/reset"),  # would delete every object
            ("GET", "/latest/meta-data/iam/security-credentials/"),
            ("GET", "/maskq?list-type=2"),
            ("POST", "/maskq?delete&X-Amz-Credential=test/20260101/us-east-1/s3/aws4_request"),
        ],
    )
    def test_refuses_the_unsigned(self, stack: Stack, method: str, path: str) -> None:
        assert urllib3.request(method, stack.s3.endpoint_url + path).status == 403

    def test_refuses_a_write_that_the_disk_cannot_take(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent: list[dict[str, object]] = []

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        monkeypatch.setattr("maskq_standalone.servers.s3_process.RESERVE_BYTES", 2**60)
        form = [(b"content-type", b"multipart/form-data; boundary=x")]
        scope = {"type": "http", "method": "POST", "path": "/maskq", "query_string": b""}
        scope["headers"] = form
        authorizer = Authorizer(None, "key", "secret", str(tmp_path))
        asyncio.run(authorizer(scope, None, send))
        assert sent[0]["status"] == 503
        assert b"No space left on the disk" in sent[1]["body"]


class TestDirectory:
    def test_survives_stop_and_start(self, tmp_path: Path) -> None:
        with Stack(tmp_path, workers=0, pinned=True) as first:
            put(first, "kept")
            before = first.environment
            pids = descendants(os.getpid())
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
            started = descendants(stack.workers[0].pid)
            for pid in (stack.redis.child.pid, stack.s3.child.pid, stack.workers[0].pid):
                os.kill(pid, signal.SIGKILL)
            lines.clear()

            def recovered() -> bool:
                stack.check()
                return len(lines) == 6

            assert eventually(recovered)
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
            pids = descendants(process.pid)
            assert len(pids) >= 7  # three children, their guards, the worker's own child
            process.kill()
            process.wait()
            assert eventually(lambda: not alive(pids)), alive(pids)
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

    def test_waits_for_a_worker_that_drains(self, tmp_path: Path) -> None:
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
            pids = descendants(os.getpid())
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
        worker += "pathlib.Path(os.environ['MASKQ_HEALTH_FILE']).touch(); time.sleep(0.5)\n"
        worker += "print('MASKQ_DEVICE: no such device'); sys.exit(os.EX_CONFIG)"
        with Stack(
            tmp_path,
            pinned=True,
            worker_command=[sys.executable, "-c", worker],
            report=lines.append,
        ) as stack:
            assert eventually(lambda: not stack.workers[0].child.alive)
            stack.check()
            stack.check()
        assert lines[-1].startswith("worker-1 exited with code 78: MASKQ_DEVICE: no such device")
        assert lines[-1].endswith("it stays down")


def environment_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


class TestChild:
    def test_ends_with_what_it_started(self, tmp_path: Path) -> None:
        child = Child("shell", ["sh", "-c", "sleep 600 & sleep 600"], log=tmp_path / "log")
        child.start()
        try:
            assert eventually(lambda: len(descendants(child.pid)) == 2)
            pids = descendants(child.pid) | {child.pid}
        finally:
            child.stop(grace_s=1.0)
        assert eventually(lambda: not alive(pids))
        child.stop()  # a second time is no error

    def test_outlives_the_thread_that_started_it(self, tmp_path: Path) -> None:
        child = Child("sleep", ["sleep", "600"], log=tmp_path / "log")
        thread = threading.Thread(target=child.start)
        thread.start()
        thread.join()
        stays(lambda: child.alive, for_s=0.2)
        child.kill()

    def test_that_ignores_sigterm_is_killed(self, tmp_path: Path) -> None:
        command = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"]
        child = Child("deaf", command, log=tmp_path / "log")
        child.start()
        child.wait_ready(lambda: "up" in child.log_tail(), timeout_s=5)
        child.stop(grace_s=0.2)
        assert child.returncode == -signal.SIGKILL

    @pytest.mark.parametrize(
        ("command", "said"),
        [
            (["no-such-program"], "no-such-program is not a program here"),
            (["sh", "-c", "echo first; echo last >&2; exit 3"], "exited with code 3: last"),
            (["sh", "-c", "kill -9 $$"], "was ended by SIGKILL"),
            (["sleep", "600"], "was not ready after 0.5 s"),
        ],
    )
    def test_that_cannot_start_says_why(
        self, tmp_path: Path, command: list[str], said: str
    ) -> None:
        child = Child("it", command, log=tmp_path / "log")
        try:
            with pytest.raises(ChildError) as raised:
                start_and_wait(child)
        finally:
            child.kill()
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_on_a_full_disk_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("maskq_standalone.children.child.FULL_BYTES", float("inf"))
        child = Child("it", ["false"], log=tmp_path / "log")
        with pytest.raises(ChildError, match="no space left on the disk"):
            start_and_wait(child)


def start_and_wait(child: Child) -> None:
    child.start()
    child.wait_ready(lambda: False, timeout_s=0.5)


class TestServers:
    def test_moves_to_another_port_unless_one_was_asked_for(
        self, stack: Stack, tmp_path: Path
    ) -> None:
        binary = find(pinned=True)
        asked = RedisServer(tmp_path, password="secret", binary=binary, port=stack.redis.port)
        with pytest.raises(ChildError, match=rf"127\.0\.0\.1:{asked.port} is taken"):
            asked.start()
        free = RedisServer(tmp_path, password="secret", binary=binary)
        free.port = stack.redis.port  # lost between its choice and its use
        try:
            free.start()
            assert free.port != stack.redis.port
        finally:
            free.stop()

    def test_s3_announces_new_objects_also_after_a_crash(self, tmp_path: Path) -> None:
        server = S3Server(
            tmp_path, access_key_id="key", secret_access_key="secret", watched={"photos"}
        )
        try:
            server.start()
            server.kill()
            server.restart(StopSignal())
            server.client().put_object(Bucket="photos", Key="1.jpg", Body=b"pixels")
            queue = server.connect_uploads()
            answer = server.client("sqs").receive_message(
                QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=4
            )
            assert any("1.jpg" in message["Body"] for message in answer["Messages"])
        finally:
            server.stop()

    def test_data_directory_that_is_a_file(self, tmp_path: Path) -> None:
        taken = tmp_path / "file"
        taken.touch()
        with pytest.raises(ChildError, match=r"redis could not start: .*file: File exists"):
            RedisServer(taken, password="secret", log=tmp_path / "redis.log").start()
        with pytest.raises(ChildError, match=r"s3 could not start: .*file/objects: Not a dir"):
            S3Server(taken, access_key_id="key", secret_access_key="secret").start()

    def test_redis_found_by_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wheels = find(pinned=True)
        monkeypatch.setenv("MASKQ_STACK_REDIS_SERVER", str(wheels.path))
        assert find() == wheels
        monkeypatch.setenv("MASKQ_STACK_REDIS_SERVER", "no-such-redis")
        with pytest.raises(ChildError, match="no-such-redis is not a program here"):
            find()

    def test_redis_that_is_too_old(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        old = tmp_path / "redis-server"
        old.write_text("#!/bin/sh\necho Redis server v=6.2.16 sha=0:0 malloc=libc\n")
        old.chmod(0o755)
        assert not RedisBinary(old, "redis", "6.2.16").supported
        with pytest.raises(ChildError, match=r"is 6\.2\.16, at least 7\.0 is needed"):
            find(old)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert find() == find(pinned=True)  # on PATH it is passed over


class TestUp:
    def test_until_sigterm(self, tmp_path: Path) -> None:
        env_file = tmp_path / "env"
        with running(UP, tmp_path) as process:
            assert eventually(env_file.exists, within_s=60)
            assert env_file.stat().st_mode & 0o777 == 0o600
            settings = dict(
                line.split("=", 1) for line in shlex.split(env_file.read_text(), comments=True)
            )
            with redis.Redis.from_url(settings["MASKQ_REDIS_URL"]) as client:
                assert client.ping()
            pids = descendants(process.pid)
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
            assert eventually((tmp_path / "env").exists, within_s=60)
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
                assert eventually((tmp_path / "env").exists, within_s=60)
                process.send_signal(signal.SIGINT)
                time.sleep(0.7)
                assert process.poll() is None  # it drains
                process.send_signal(signal.SIGINT)
                assert process.wait(timeout=5) == 0
            finally:
                process.kill()  # else a failure would wait for it, and leave it behind
