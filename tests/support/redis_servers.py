"""Real servers with settings of their own: a Unix socket, a replica, a Sentinel, users."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis
from support.waiting import until

from maskq_standalone.servers.redis import RedisServer, find
from maskq_standalone.servers.server import Server


class TunedRedis(RedisServer):
    """With lines of configuration after the usual ones."""

    def __init__(self, directory: Path, *lines: str, password: str | None = None) -> None:
        self.lines = ("repl-diskless-sync-delay 0", *lines)
        super().__init__(
            directory, password=password or secrets.token_urlsafe(), binary=find(pinned=True)
        )

    def child_stdin(self) -> bytes:
        usual = super().child_stdin().decode().splitlines()
        if any(line.startswith("aclfile") for line in self.lines):  # its users are all there are
            usual = [line for line in usual if not line.startswith("requirepass")]
        return "".join(f"{line}\n" for line in (*usual, *self.lines)).encode()

    def admin(self) -> redis.Redis:
        """As the user who may do everything."""
        return admin(self)


def admin(server: RedisServer) -> redis.Redis:
    """As the user who may do everything."""
    return redis.Redis(
        port=server.port, password=server.password, decode_responses=True, protocol=2
    )


class Sentinel(Server):
    """One Sentinel, which by itself decides on a failover."""

    name = "sentinel"

    def __init__(self, directory: Path, primary: RedisServer, *lines: str) -> None:
        self._primary = primary
        self._lines = lines
        directory.mkdir(parents=True, exist_ok=True)
        self._file = directory / "sentinel.conf"
        super().__init__(log=directory / "sentinel.log")

    def command(self) -> Sequence[str]:
        lines = (
            f"port {self.port}",
            "bind 127.0.0.1",
            f"sentinel monitor maskq-test 127.0.0.1 {self._primary.port} 1",
            f"sentinel auth-pass maskq-test {self._primary.password}",
            "sentinel down-after-milliseconds maskq-test 1000",
            "sentinel failover-timeout maskq-test 3000",
            *self._lines,
        )
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text("".join(f"{line}\n" for line in lines))
        return [str(self._primary.binary.path), str(self._file), "--sentinel"]

    def is_ready(self) -> bool:
        return True


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    """All of them, until the block ends."""
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in reversed(servers):
            server.stop()


def follow(replica: RedisServer, primary: RedisServer) -> None:
    """Make one server the replica of another, connections left open; returns once it has its data."""
    with admin(replica) as asked:
        asked.config_set("masterauth", primary.password)
        asked.replicaof("127.0.0.1", primary.port)
        until(lambda: asked.info("replication")["master_link_status"] == "up")


def swap(primary: RedisServer, replica: RedisServer, moved: Callable[[], object]) -> None:
    """A failover that loses nothing: writes pause until the replica has them all.

    `moved`: called once the replica leads, as DNS or a proxy is told. Connections to the former
    primary, which is a replica then, stay open.
    """
    with admin(primary) as old, admin(replica) as new:
        old.client_pause(20_000, all=False)
        place = old.info("replication")["master_repl_offset"]
        until(lambda: new.info("replication")["slave_repl_offset"] >= place)
        new.replicaof("NO", "ONE")
        moved()
        follow(primary, replica)
        old.client_unpause()
