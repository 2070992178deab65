"""The whole service on one machine: Redis, S3 and workers as child processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from maskq import environment
from maskq.contract.locations import S3Uri
from maskq.process import EX_CONFIG
from maskq.settings import KNOWN
from maskq_standalone import http_api, uploads
from maskq_standalone.children.child import Child, ChildError, Stopped, explain
from maskq_standalone.children.restarts import Restarts
from maskq_standalone.ports import free_port
from maskq_standalone.servers import redis
from maskq_standalone.servers.redis import RedisServer
from maskq_standalone.servers.s3 import S3Server
from maskq_standalone.servers.server import Server
from maskq_standalone.state_dir import Credentials, Lock
from maskq_standalone.workers import (
    COMMAND,
    DRAIN_S,
    WEBHOOKS_COMMAND,
    Worker,
    gpu_environments,
)
from maskq_worker.process.cpu import cpu_environment

Report = Callable[[str], None]
# Set by the stack itself, so not taken from the environment it was started in.
OWN = (
    "MASKQ_REDIS_URL", "MASKQ_S3_ENDPOINT_URL", "MASKQ_S3_BUCKET", "MASKQ_HEALTH_FILE",
    "MASKQ_GATEWAY_URL", "MASKQ_API_KEY",
)  # fmt: skip
PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def silent(line: str) -> None:
    """Report nothing: the default within a program."""


class Stack:
    """A context manager: up and ready inside, all ended after.

    It restarts nothing by itself: whoever wants that calls `check` again and again, as `maskq up`
    does.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        workers: int = 1,
        model: str = "demo",
        env: Mapping[str, str] | None = None,
        log_level: str | None = None,
        bucket: str = "maskq",
        redis_binary: str | Path | None = None,
        pinned: bool = False,
        worker_command: Sequence[str] | None = None,
        webhooks: bool = False,
        rules: Path | None = None,
        http_api: bool = False,
        drain_s: float = DRAIN_S,
        report: Report = silent,
    ) -> None:
        """Nothing starts yet.

        directory: where data, credentials and logs stay; None: a temporary one, removed at stop.
        env: further settings, for workers and in `environment`; over MASKQ_ variables of this
        process, which count as well, so that clients and workers agree.
        webhooks: whether a process posts what is owed to receivers.
        rules: a file that says which uploads start which jobs.
        http_api: whether a gateway serves the HTTP API, on a free port.
        redis_binary, pinned: see redis.find. worker_command: instead of the real worker.
        drain_s: how long a worker may finish its jobs when the stack stops.
        report: takes one line for each thing that became ready, died or came back.
        """
        self._temporary = directory is None
        self._given_directory = directory
        self._workers_wanted = workers
        level = {"MASKQ_LOG_LEVEL": log_level} if log_level else {}
        self._env = _inherited() | {"MASKQ_MODEL": model} | level | dict(env or {})
        self._bucket = bucket
        self._redis_binary = redis_binary
        self._pinned = pinned
        self._worker_command = tuple(worker_command or COMMAND)
        self._webhooks = webhooks
        self._rules = rules
        self._http_port = free_port() if http_api else 0
        self._watched: set[str] = set()  # buckets
        self._drain_s = drain_s
        self._report = report
        self._stop_requests = 0
        self._lock: Lock | None = None
        self._servers: list[Server] = []
        self._numbered = 0  # workers made so far
        self._gpus: list[dict[str, str]] | None = None  # looked up for the first worker
        self.workers: list[Worker] = []
        self.others: list[Worker] = []  # processes without a model

    s3_server: ClassVar[type[S3Server]] = S3Server

    # Before it is started there is nothing to see; these fail loudly then.
    directory: Path
    redis: RedisServer
    s3: S3Server
    _credentials: Credentials

    @property
    def environment(self) -> dict[str, str]:
        """What clients and workers need to find this stack."""
        return (
            {
                "MASKQ_REDIS_URL": self.redis.url,
                "MASKQ_S3_ENDPOINT_URL": self.s3.endpoint_url,
                "MASKQ_S3_BUCKET": self._bucket,
                "MASKQ_WEBHOOK_SECRET": self._credentials.webhook_secret,
            }
            | self.s3.environment
            | self._http_settings()
            | _no_proxy()
            | self._env
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all and wait until it is ready.

        Raises ChildError with one line, Stopped after `request_stop`; nothing is left then.
        """
        if self._lock is not None:
            raise ChildError(f"the stack on {self.directory} runs already")
        try:
            self._open_directory()
            if self._rules:
                self._watched = uploads.watched(self._rules, self._own_output())
            self._start_servers()
            if self._http_port:
                http_api.install_key(self.environment, self._credentials.api_key)
                streaming = {"MASKQ_GATEWAY_OUTPUTS": "stream"} | self.environment
                self._start_other("gateway", http_api.command(self._http_port), streaming)
            if self._webhooks:
                self._start_other("webhooks", WEBHOOKS_COMMAND)
            if self._rules:
                self._start_other("uploads", uploads.COMMAND, self._watching(self._rules))
            self.start_workers(self._workers_wanted)
        except ChildError:
            self._temporary = False  # its logs are wanted: the error names one
            self.stop()
            raise
        except BaseException:
            self.stop()
            raise

    def start_worker(self, env: Mapping[str, str] | None = None) -> Worker:
        """One worker more, ready when this returns; `env` is laid over `environment`."""
        return self.start_workers(1, env)[0]

    def start_workers(self, count: int, env: Mapping[str, str] | None = None) -> list[Worker]:
        """`count` workers more, side by side. Raises ChildError with the first one's own words."""
        share = cpu_environment(max(1, count, self._workers_wanted))
        new = [self._new_worker(share | dict(env or {})) for _ in range(count)]
        try:
            for worker in new:
                worker.start()
            for worker in new:
                worker.wait_ready(cancelled=self.stopping)
                self._announce(worker)
        except BaseException:
            for worker in new:
                worker.child.kill()
                self.workers.remove(worker)
            raise
        return new

    def request_stop(self) -> None:
        """For a signal handler: the first call makes every wait give up with Stopped, a further one
        makes `stop` kill instead of waiting."""
        self._stop_requests += 1

    def stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._stop_requests > 0

    def stop(self) -> None:
        """Workers, then S3, then Redis, each by SIGTERM and, past its time, SIGKILL. Idempotent.

        A KeyboardInterrupt on the way kills what is left at once, and is raised again.
        """
        try:
            self._stop_workers()
            for server in reversed(self._servers):
                server.stop(hurry=self._hurry)
        except BaseException:
            self._kill_all()
            raise
        finally:
            self._close_directory()

    def check(self) -> None:
        """Look after the children once: report what died, restart what is due. Never raises for a
        child. Redis and S3 come back on their ports; a worker is not waited for."""
        for server in self._servers:
            with contextlib.suppress(Stopped):
                self._check_server(server)
        for worker in self._processes:
            self._check_worker(worker)

    def kill_redis(self) -> None:
        """SIGKILL, as a crash would."""
        self.redis.kill()

    def restart_redis(self) -> None:
        """On the same port and data. Raises ChildError."""
        self.redis.restart(self.stopping)

    def kill_s3(self) -> None:
        """SIGKILL, as a crash would."""
        self.s3.kill()

    def restart_s3(self) -> None:
        """On the same port and data. Raises ChildError."""
        self.s3.restart(self.stopping)

    def _hurry(self) -> bool:
        return self._stop_requests > 1

    def _open_directory(self) -> None:
        try:
            if self._given_directory is None:
                self.directory = Path(tempfile.mkdtemp(prefix="maskq-"))
            else:
                self.directory = self._given_directory.absolute()
                self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ChildError(explain(error)) from None
        self._lock = Lock(self.directory)
        self._lock.acquire()

    def _close_directory(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
            if self._temporary:
                shutil.rmtree(self.directory, ignore_errors=True)

    def _start_servers(self) -> None:
        """Side by side, but from one thread: the tether holds only what the main thread starts."""
        credentials = self._credentials = Credentials.of(self.directory)
        logs = self.directory / "logs"
        self.redis = RedisServer(
            self.directory / "redis",
            password=credentials.redis_password,
            binary=redis.find(self._redis_binary, pinned=self._pinned),
            log=logs / "redis.log",
            keep_open=self._held(),
        )
        self.s3 = self.s3_server(
            self.directory / "s3",
            access_key_id=credentials.s3_access_key_id,
            secret_access_key=credentials.s3_secret_access_key,
            bucket=self._bucket,
            log=logs / "s3.log",
            keep_open=self._held(),
        )
        self._servers = [self.redis, self.s3]
        for server in self._servers:
            server.spawn()
        for server in self._servers:
            server.wait_ready(self.stopping)
            self._announce(server)

    def _http_settings(self) -> dict[str, str]:
        if not self._http_port:
            return {}
        return http_api.settings(self._http_port, self._credentials.api_key)

    def _held(self) -> list[int]:
        return [self._lock.fd] if self._lock is not None else []

    @property
    def _processes(self) -> list[Worker]:
        return [*self.workers, *self.others]

    def _own_output(self) -> S3Uri:
        return S3Uri(self._bucket, self._env.get("MASKQ_OUTPUT_PREFIX", "maskq"))

    def _watching(self, rules: Path) -> dict[str, str]:
        """What the process that listens to uploads needs beside `environment`."""
        return {
            "MASKQ_TRIGGER_RULES": str(rules.absolute()),
            "MASKQ_TRIGGER_QUEUE_URL": uploads.connect(self.s3, self._watched),
            "MASKQ_SQS_ENDPOINT_URL": self.s3.endpoint_url,
        }

    def _start_other(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> None:
        """A process without a model."""
        process = Worker(
            name,
            self.directory,
            self.environment | dict(env or {}),
            command=command,
            keep_open=self._held(),
        )
        self.others.append(process)
        process.start()
        process.wait_ready(cancelled=self.stopping)
        self._announce(process)

    def _new_worker(self, env: Mapping[str, str]) -> Worker:
        """Workers take turns at the GPUs there are."""
        if self._gpus is None:
            self._gpus = gpu_environments()
        gpu = self._gpus[self._numbered % len(self._gpus)] if self._gpus else {}
        self._numbered += 1
        worker = Worker(
            f"worker-{self._numbered}",
            self.directory,
            gpu | self.environment | dict(env),
            command=self._worker_command,
            keep_open=self._held(),
        )
        self.workers.append(worker)
        return worker

    def _announce(self, what: Server | Worker, again: str = "") -> None:
        took = f"{what.ready_after_s:.2f} s"
        if isinstance(what, Server):
            self._report(f"{what.name} ready{again} on {what.address} ({what.describe()}), {took}")
        else:
            what.announced = True
            self._report(f"{what.name} ready{again} (process {what.pid}), {took}")

    def _check_server(self, server: Server) -> None:
        if server.child.alive:
            return
        if not server.restarts.scheduled:
            self._report_death(server.name, server.child, server.restarts)
        if server.restarts.due:
            try:
                server.restart(self.stopping)
                if server is self.s3 and self._watched:
                    uploads.connect(self.s3, self._watched)
            except ChildError as error:
                server.child.kill()  # it may be up, and what was to follow failed: all of it again
                self._report(f"{error}; again in {server.restarts.ended():g} s")
            else:
                self._announce(server, " again")

    def _check_worker(self, worker: Worker) -> None:
        if worker.child.alive:
            if not worker.announced and worker.is_ready():
                self._announce(worker, " again")
        elif worker.given_up:
            pass
        elif worker.child.returncode == EX_CONFIG:
            worker.given_up = True
            self._report(f"{worker.name} {worker.child.ending()}; it stays down")
        elif not worker.restarts.scheduled:
            self._report_death(worker.name, worker.child, worker.restarts)
        elif worker.restarts.due:
            try:
                worker.start()
            except ChildError as error:
                self._report(f"{error}; again in {worker.restarts.ended():g} s")

    def _report_death(self, name: str, child: Child, restarts: Restarts) -> None:
        ending, wait_s = child.ending(), restarts.ended()
        self._report(f"{name} {ending}; restarting it" + (f" in {wait_s:g} s" if wait_s else ""))

    def _stop_workers(self) -> None:
        for worker in self._processes:  # they drain side by side
            worker.child.terminate()
        deadline = time.monotonic() + self._drain_s
        for worker in self._processes:
            left_s = max(0.0, deadline - time.monotonic())
            worker.child.wait_ended(left_s, self._hurry)

    def _kill_all(self) -> None:
        for worker in self._processes:
            worker.child.kill()
        for server in self._servers:
            server.kill()


def _inherited() -> dict[str, str]:
    """Settings of this process, with files read: children may get other values for some of them."""
    return environment.resolved(KNOWN, leave_out=(*OWN, redis.SETTING))


def _no_proxy() -> dict[str, str]:
    """Where a proxy is set, clients would ask it for 127.0.0.1."""
    if not any(os.environ.get(name) for name in PROXIES):
        return {}
    hosts = [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1"]
    value = ",".join(host for host in hosts if host)
    return {"NO_PROXY": value, "no_proxy": value}
