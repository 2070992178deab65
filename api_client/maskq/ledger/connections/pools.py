"""Pools of connections to Redis, blocking and async, for the ledger and for Celery.

A server that was demoted, loads its data or has a full disk answers with an error. These connections
treat such an error as a lost connection: the caller reconnects, by DNS or Sentinel, with the same
back-off and the same limits as in any outage.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import redis
import redis.asyncio
from redis import exceptions
from redis.asyncio.connection import Connection as AsyncConnection
from redis.asyncio.connection import SSLConnection as AsyncSSLConnection
from redis.asyncio.connection import UnixDomainSocketConnection as AsyncUnixConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.retry import Retry

from maskq.ledger.connections.redis_url import RedisUrl
from maskq.ledger.connections.slots import CONNECTIONS

if TYPE_CHECKING:
    # Only for type checking: _Watched and _WatchedAsync are mixins for three classes of redis-py each.
    from redis.asyncio.connection import AbstractConnection as AsyncBase
    from redis.connection import AbstractConnection as Base
else:
    Base = AsyncBase = object

# These detect a half-open connection within seconds. redis-py's defaults never detect one.
_TIMEOUT_S: Final = 5.0
_HEALTH_CHECK_S: Final = 5

# Turns off CLIENT SETINFO: it costs two round trips a connection, Redis 7.0 lacks it, and an ACL may
# forbid it.
_UNNAMED: Final[Mapping[str, Any]] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)

_AWAY = (redis.ConnectionError, redis.TimeoutError, redis.ResponseError)
# redis-py raises ClusterDownError for MASTERDOWN too.
_MOVED = (exceptions.ReadOnlyError, exceptions.ClusterDownError)
_MOVED_CODES = ("READONLY ", "UNBLOCKED ", "MASTERDOWN ", "CLUSTERDOWN ")
_NO_REPLICA = "cannot be used with replica instances"  # what WAITAOF answers on a replica
_PASSING = (exceptions.TryAgainError,)
_PASSING_CODES = ("LOADING ", "BUSY ", "MISCONF ", "NOREPLICAS ", "TRYAGAIN ")


class Interrupted(redis.ConnectionError):
    """The server answers, but cannot work at the moment."""

    moved = False  # whether another server may be the primary


class Moved(Interrupted):
    """The server is not the primary any more, or never was."""

    moved = True


class Primary:
    """The server that the connections of one pool lead to."""

    def __init__(self, url: RedisUrl) -> None:
        self.url = url
        self.generation = 0  # rises when the primary moves; older connections must be closed

    def interruption(self, error: exceptions.ResponseError) -> Interrupted | None:
        """The error to raise instead of `error`; None if the server can work.

        Raises the generation if the server is not the primary.
        """
        text = str(error)
        if isinstance(error, _MOVED) or text.startswith(_MOVED_CODES) or _NO_REPLICA in text:
            self.generation += 1
            return Moved(f"it is not the primary now ({text})")
        if isinstance(error, _PASSING) or text.startswith(_PASSING_CODES):
            return Interrupted(text)
        return None

    def locate(self) -> tuple[str, int]:
        """Ask the Sentinels in turn for the primary. Returns (host, port). Raises ConnectionError."""
        lost = self._unknown()
        for host, port in self.url.hosts:
            with redis.Redis(host, port, retry=Retry(NoBackoff(), 0), **self._asking()) as asked:
                try:
                    found: Any = asked.sentinel_get_master_addr_by_name(self.url.service)
                    if found:
                        return found[0], int(found[1])
                except _AWAY as error:
                    lost = _no_sentinel(host, port, error)
        raise lost

    async def locate_async(self) -> tuple[str, int]:
        """Async version of `locate`."""
        lost = self._unknown()
        for host, port in self.url.hosts:
            retry = AsyncRetry(NoBackoff(), 0)
            async with redis.asyncio.Redis(
                host=host, port=port, retry=retry, **self._asking()
            ) as asked:
                try:
                    found: Any = await asked.sentinel_get_master_addr_by_name(self.url.service)
                    if found:
                        return found[0], int(found[1])
                except _AWAY as error:
                    lost = _no_sentinel(host, port, error)
        raise lost

    def _unknown(self) -> redis.ConnectionError:
        return redis.ConnectionError(f"the Sentinels know no primary called {self.url.service!r}")

    def _asking(self) -> dict[str, Any]:
        options = _socket_options(self.url) | {
            "username": self.url.sentinel_username,
            "password": self.url.sentinel_password,
            "decode_responses": True,
        }
        return options if self.url.tls is None else options | {"ssl": True} | dict(self.url.tls)


def _no_sentinel(host: str, port: int, error: Exception) -> redis.ConnectionError:
    """The error to raise if no other Sentinel names the primary either."""
    lost = redis.ConnectionError(f"Sentinel {host}:{port}: {error}")
    lost.__cause__ = error
    return lost


class _Watched(Base):
    """A mixin for redis-py's connections: finds the primary and disconnects from a demoted server."""

    def __init__(self, *, primary: Primary, **kwargs: Any) -> None:
        self._primary = primary
        self._generation = primary.generation
        super().__init__(**kwargs)

    def connect(self) -> None:
        if self._generation != self._primary.generation:
            self.disconnect()  # type: ignore[no-untyped-call]
        super().connect()  # type: ignore[no-untyped-call]

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        if self._sock is None:
            self._generation = self._primary.generation
            if self._primary.url.service:
                self.host, self.port = self._primary.locate()
        super().connect_check_health(*args, **kwargs)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)
        except exceptions.ResponseError as error:
            if interrupted := self._primary.interruption(error):
                self.disconnect()  # type: ignore[no-untyped-call]
                raise interrupted from error
            raise


class _WatchedAsync(AsyncBase):
    """Async version of `_Watched`."""

    def __init__(self, *, primary: Primary, **kwargs: Any) -> None:
        self._primary = primary
        self._generation = primary.generation
        super().__init__(**kwargs)

    async def connect(self) -> None:
        if self._generation != self._primary.generation:
            await self.disconnect()
        await super().connect()  # type: ignore[no-untyped-call]

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        if not self.is_connected:
            self._generation = self._primary.generation
            if self._primary.url.service:
                self.host, self.port = await self._primary.locate_async()
        await super().connect_check_health(*args, **kwargs)

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except exceptions.ResponseError as error:
            if interrupted := self._primary.interruption(error):
                await self.disconnect()
                raise interrupted from error
            raise


class _Plain(_Watched, Connection):
    pass


class _Tls(_Watched, SSLConnection):
    pass


class _Unix(_Watched, UnixDomainSocketConnection):
    pass


class _PlainAsync(_WatchedAsync, AsyncConnection):
    pass


class _TlsAsync(_WatchedAsync, AsyncSSLConnection):
    pass


class _UnixAsync(_WatchedAsync, AsyncUnixConnection):
    pass


def connection_class(url: RedisUrl) -> type[Any]:
    """The class of blocking connections to this Redis."""
    if url.path:
        return _Unix
    return _Plain if url.tls is None else _Tls


def _async_connection_class(url: RedisUrl) -> type[Any]:
    if url.path:
        return _UnixAsync
    return _PlainAsync if url.tls is None else _TlsAsync


def connection_options(url: RedisUrl) -> dict[str, Any]:
    """Keyword arguments for `connection_class(url)`. Its connections neither decode nor retry."""
    options = _socket_options(url) | {
        "primary": Primary(url),
        "db": url.db,
        "username": url.username,
        "password": url.password,
    }
    if url.path:
        return options | {"path": url.path}
    if not url.service:
        options["host"], options["port"] = url.hosts[0]
    return options | dict(url.tls or {})


def _socket_options(url: RedisUrl) -> dict[str, Any]:
    options: dict[str, Any] = {
        **_UNNAMED,
        "socket_timeout": _TIMEOUT_S,
        "socket_connect_timeout": _TIMEOUT_S,
        "health_check_interval": _HEALTH_CHECK_S,
        "protocol": 2,
    }
    if not url.path:
        options["socket_keepalive"] = True
    return options | {
        name: value
        for name, value in url.options.items()
        if name != "socket_keepalive" or not url.path
    }


def pool(url: RedisUrl, **more: Any) -> redis.ConnectionPool:
    """A pool of blocking connections that threads can share. more: arguments of each connection."""
    return redis.ConnectionPool(
        connection_class=connection_class(url), **_pool_options(url), **more
    )


def async_pool(url: RedisUrl, **more: Any) -> redis.asyncio.ConnectionPool:
    """A pool of async connections, for one event loop. more: arguments of each connection."""
    return redis.asyncio.ConnectionPool(
        connection_class=_async_connection_class(url), **_pool_options(url), **more
    )


def _pool_options(url: RedisUrl) -> Mapping[str, Any]:
    # The ledger limits how many connections it uses at a time (slots.py). Further calls wait.
    return connection_options(url) | {"max_connections": url.max_connections or CONNECTIONS}
