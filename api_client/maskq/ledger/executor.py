"""Carry calls out: blocking and async, the same calls, the same errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from maskq.errors import InvalidRequest, QueueFull, StoreUnavailable
from maskq.ledger.calls import Call

T = TypeVar("T")
U = TypeVar("U")

# A half-open connection is noticed within seconds (the default never notices). Every call may be sent
# twice, so a lost answer is simply asked for again.
_CONNECTION: dict[str, Any] = {
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 5,
    "decode_responses": True,
    "protocol": 2,
}
_TRIES = 3
_OUTAGE = (redis.ConnectionError, redis.TimeoutError)


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(cap=1.0, base=0.05)


def _command(call: Call[Any]) -> tuple[str | int, ...]:
    if call.script is None:
        return call.args
    return ("EVALSHA", call.script.sha, 0, *call.args)


@contextmanager
def _usable_url() -> Iterator[None]:
    try:
        yield
    except ValueError:  # its text may hold a part of the password
        raise InvalidRequest(
            "MASKQ_REDIS_URL is no URL of a Redis: it is redis://:PASSWORD@HOST:PORT/0, and what is "
            "neither letter nor digit in a password is written as in URLs (%2F for /)"
        ) from None


@contextmanager
def _typed_errors(url: str) -> Iterator[None]:
    """What the person who configured the URL needs to read, without its password."""
    place = url.rpartition("@")[2].removeprefix("redis://").removeprefix("rediss://")
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{error.object!a} is not text that can be sent: {error}") from None
    except redis.AuthenticationError as error:
        raise StoreUnavailable(
            f"Redis at {place} refused the password: {error}; check MASKQ_REDIS_URL"
        ) from error
    except _OUTAGE as error:
        raise StoreUnavailable(
            f"Redis at {place} cannot be reached: {error}; check MASKQ_REDIS_URL and that it runs"
        ) from error
    except redis.OutOfMemoryError as error:
        raise QueueFull(f"Redis at {place} is at its memory limit; submit again later") from error
    except redis.ResponseError as error:
        if str(error).startswith(("OOM", "-OOM")) or "maxmemory" in str(error):
            raise QueueFull(
                f"Redis at {place} is at its memory limit; submit again later"
            ) from error
        raise StoreUnavailable(f"Redis at {place} refused the call: {error}") from error


class Ledger:
    """The blocking executor; safe to share between threads."""

    def __init__(self, url: str) -> None:
        self._url = url
        retry = Retry(_backoff(), _TRIES)
        with _usable_url():
            self.redis: redis.Redis = redis.Redis.from_url(
                url, retry=retry, retry_on_error=list(_OUTAGE), **_CONNECTION
            )

    def run(self, call: Call[T]) -> T:
        with _typed_errors(self._url):
            return call.parse(self._send(call))

    def run_many(self, calls: Sequence[Call[T]]) -> list[T]:
        """All calls in one round trip; independent of one another, in order."""
        with _typed_errors(self._url):
            try:
                answers = self._pipeline(calls)
            except NoScriptError:
                self._load(calls)
                answers = self._pipeline(calls)
            return [call.parse(answer) for call, answer in zip(calls, answers, strict=True)]

    def run_both(self, first: Call[T], second: Call[U]) -> tuple[T, U]:
        """Two calls whose answers differ, in one round trip."""
        both: Sequence[Call[Any]] = (first, second)
        one, other = self.run_many(both)
        return one, other

    def run_id(self) -> str:
        """Which run of the server this is: it changes with a restart."""
        with _typed_errors(self._url):
            return str(self.redis.info("server")["run_id"])

    def close(self) -> None:
        self.redis.close()

    def _send(self, call: Call[Any]) -> Any:
        try:
            return self.redis.execute_command(*_command(call))
        except NoScriptError:
            self._load([call])
            return self.redis.execute_command(*_command(call))

    def _pipeline(self, calls: Sequence[Call[Any]]) -> list[Any]:
        with self.redis.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*_command(call))
            return pipe.execute()

    def _load(self, calls: Sequence[Call[Any]]) -> None:
        for text in {call.script.text for call in calls if call.script}:
            self.redis.script_load(text)


class AsyncLedger:
    """The async executor; one per event loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        retry = AsyncRetry(_backoff(), _TRIES)
        with _usable_url():
            self.redis: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
                url, retry=retry, retry_on_error=list(_OUTAGE), **_CONNECTION
            )

    async def run(self, call: Call[T]) -> T:
        with _typed_errors(self._url):
            return call.parse(await self._send(call))

    async def run_many(self, calls: Sequence[Call[T]]) -> list[T]:
        """All calls in one round trip; independent of one another, in order."""
        with _typed_errors(self._url):
            try:
                answers = await self._pipeline(calls)
            except NoScriptError:
                await self._load(calls)
                answers = await self._pipeline(calls)
            return [call.parse(answer) for call, answer in zip(calls, answers, strict=True)]

    async def close(self) -> None:
        await self.redis.aclose()

    async def _send(self, call: Call[Any]) -> Any:
        try:
            return await self.redis.execute_command(*_command(call))
        except NoScriptError:
            await self._load([call])
            return await self.redis.execute_command(*_command(call))

    async def _pipeline(self, calls: Sequence[Call[Any]]) -> list[Any]:
        async with self.redis.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*_command(call))
            return await pipe.execute()

    async def _load(self, calls: Sequence[Call[Any]]) -> None:
        for text in {call.script.text for call in calls if call.script}:
            await self.redis.script_load(text)
