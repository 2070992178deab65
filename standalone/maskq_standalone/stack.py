"""The whole service on one machine: Redis, S3 and workers as child processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from maskq.contract.locations import S3Uri
from maskq.process.stop_signal import StopSignal
from maskq.telemetry.settings import PORT, port_of
from maskq_standalone import http_api, inherited, uploads
from maskq_standalone.children.child import ChildError
from maskq_standalone.ports import free_port
from maskq_standalone.servers import redis
from maskq_standalone.servers.redis import RedisServer
from maskq_standalone.servers.s3 import S3Server
from maskq_standalone.servers.server import Server
from maskq_standalone.state_dir import Credentials, StateDir
from maskq_standalone.workers import COMMAND, WEBHOOKS_COMMAND, Worker, gpu_environments
from maskq_worker.process.cpu import cpu_environment
from maskq_worker.process.supervisor import Supervisor

# The port that is set is the gateway's; the workers have the ports after it.
_NO_METRICS = {PORT: ""}

Report = Callable[[str], None]


def silent(line: str) -> None:
    """Report nothing: the default of `report`."""


class Stack:
    """A context manager: all processes are ready inside the block, and ended after it.

    A process that dies is restarted by the next call of `check`; `maskq up` calls it in a loop.
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
        report: Report = silent,
    ) -> None:
        """Nothing starts yet.

        directory: for data, credentials and logs; None: a temporary one, removed at stop.
        env: further settings, for workers and in `environment`. They take precedence over the MASKQ_
        variables of this process, which clients and workers get, too. MASKQ_DRAIN_S among them is how
        long a worker may finish its jobs when the stack stops.
        webhooks: whether a process posts due webhooks.
        rules: a file that says which uploads start which jobs.
        http_api: whether a gateway serves the HTTP API, on a free port.
        redis_binary, pinned: see redis.find. worker_command: instead of the real worker.
        report: takes one line for each process that became ready, died or is ready again.
        """
        self._state = StateDir(directory)
        self._workers_wanted = workers
        level = {"MASKQ_LOG_LEVEL": log_level} if log_level else {}
        self._env = inherited.settings() | {"MASKQ_MODEL": model} | level | dict(env or {})
        self._bucket = bucket
        self._redis_binary = redis_binary
        self._pinned = pinned
        self._worker_command = tuple(worker_command or COMMAND)
        self._webhooks = webhooks
        self._rules = rules
        self._http_port = free_port() if http_api else 0
        self._watched: frozenset[str] = frozenset()  # buckets
        self.stop_signal = StopSignal()
        self._supervisor = Supervisor(self.stop_signal, report)
        self._servers: list[Server] = []
        self._numbered = 0  # workers made so far
        self._gpus: list[dict[str, str]] | None = None  # looked up for the first worker
        self.workers: list[Worker] = []
        self.others: list[Worker] = []  # processes without a model

    s3_server: ClassVar[type[S3Server]] = S3Server

    # Set by `start`.
    redis: RedisServer
    s3: S3Server
    _credentials: Credentials

    @property
    def directory(self) -> Path:
        """Where data, credentials and logs are; from `start` on."""
        return self._state.path

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
            | inherited.no_proxy()
            | self._env
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all processes and wait until they are ready.

        Raises ChildError with one line, Stopped after `request_stop`; no process is left then.
        """
        if self._state.is_open:
            raise ChildError(f"the stack on {self.directory} runs already")
        try:
            self._state.open()
            if self._rules:
                self._watched = uploads.watched(self._rules, self._own_output())
            self._start_servers()
            if self._http_port:
                http_api.install_key(self.environment, self._credentials.api_key)
                streaming = {"MASKQ_GATEWAY_OUTPUTS": "stream"} | self.environment
                self._start_other("gateway", http_api.command(self._http_port), streaming)
            if self._webhooks:
                self._start_other("webhooks", WEBHOOKS_COMMAND, _NO_METRICS)
            if self._rules:
                reading = uploads.settings(
                    self._rules, self.s3.connect_uploads(), self.s3.endpoint_url
                )
                self._start_other("uploads", uploads.COMMAND, _NO_METRICS | reading)
            self.start_workers(self._workers_wanted)
        except ChildError:
            self._state.keep()  # the error may name a log in it
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
                self._supervisor.announce(worker)
        except BaseException:
            for worker in new:
                worker.kill()
                self.workers.remove(worker)
            raise
        return new

    def request_stop(self) -> None:
        """For a signal handler: the first call makes every wait give up with Stopped, a further one
        makes `stop` kill instead of waiting."""
        self.stop_signal.request()

    def stopping(self) -> bool:
        """Whether a stop was requested."""
        return self.stop_signal.requested()

    def stop(self) -> None:
        """Stop workers, then S3, then Redis, each by SIGTERM and, after its time, SIGKILL. Idempotent.

        A KeyboardInterrupt meanwhile kills what is left at once, and is raised again.
        """
        try:
            self._supervisor.stop(self._processes)
            for server in reversed(self._servers):
                server.stop(hurry=self.stop_signal.at_once)
        except BaseException:
            self._kill_all()
            raise
        finally:
            self._state.close()

    def check(self) -> None:
        """Look after the processes once: report those that died, restart those that are due.

        Never raises for a process. Redis and S3 restart on their ports; `check` waits for them, and
        not for workers.
        """
        self._supervisor.check([*self._servers, *self._processes])

    def kill_redis(self) -> None:
        """SIGKILL, as a crash would."""
        self.redis.kill()

    def restart_redis(self) -> None:
        """On the same port and data. Raises ChildError."""
        self.redis.restart(self.stop_signal)

    def kill_s3(self) -> None:
        """SIGKILL, as a crash would."""
        self.s3.kill()

    def restart_s3(self) -> None:
        """On the same port and data. Raises ChildError."""
        self.s3.restart(self.stop_signal)

    def _start_servers(self) -> None:
        """Side by side, but from one thread: see maskq.process.parent_death."""
        credentials = self._credentials = Credentials.of(self.directory)
        logs = self.directory / "logs"
        self.redis = RedisServer(
            self.directory / "redis",
            password=credentials.redis_password,
            binary=redis.find(self._redis_binary, pinned=self._pinned),
            log=logs / "redis.log",
            keep_open=self._state.held(),
        )
        self.s3 = self.s3_server(
            self.directory / "s3",
            access_key_id=credentials.s3_access_key_id,
            secret_access_key=credentials.s3_secret_access_key,
            bucket=self._bucket,
            watched=self._watched,
            log=logs / "s3.log",
            keep_open=self._state.held(),
        )
        self._servers = [self.redis, self.s3]
        for server in self._servers:
            server.spawn()
        for server in self._servers:
            server.wait_ready(self.stopping)
            self._supervisor.announce(server)

    def _http_settings(self) -> dict[str, str]:
        if not self._http_port:
            return {}
        return http_api.settings(self._http_port, self._credentials.api_key)

    @property
    def _processes(self) -> list[Worker]:
        return [*self.workers, *self.others]

    def _own_output(self) -> S3Uri:
        return S3Uri(self._bucket, self._env.get("MASKQ_OUTPUT_PREFIX", "maskq"))

    def _start_other(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> None:
        """A process without a model."""
        process = Worker(
            name,
            self.directory,
            self.environment | dict(env or {}),
            command=command,
            keep_open=self._state.held(),
        )
        self.others.append(process)
        process.start()
        process.wait_ready(cancelled=self.stopping)
        self._supervisor.announce(process)

    def _new_worker(self, env: Mapping[str, str]) -> Worker:
        """Workers are spread over the GPUs in turn."""
        if self._gpus is None:
            self._gpus = gpu_environments()
        gpu = self._gpus[self._numbered % len(self._gpus)] if self._gpus else {}
        self._numbered += 1
        worker = Worker(
            f"worker-{self._numbered}",
            self.directory,
            # The gateway has the first port.
            gpu | self.environment | port_of(self._numbered, self.environment) | dict(env),
            command=self._worker_command,
            keep_open=self._state.held(),
        )
        self.workers.append(worker)
        return worker

    def _kill_all(self) -> None:
        for process in [*self._processes, *self._servers]:
            process.kill()
