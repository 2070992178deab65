"""Carry calls out: blocking and async, the same calls, the same errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from maskq.errors import InvalidRequest, QueueFull, StoreUnavailable
from maskq.ledger.calls import Call
from maskq.ledger.slots import CONNECTIONS, AsyncSlots, Slots, apart, end
from maskq.per_process import PerLoop, PerProcess

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
    "max_connections": CONNECTIONS,
}
_TRIES = 3
_OUTAGE = (redis.ConnectionError, redis.TimeoutError)


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(cap=1.0, base=0.05)


def _at_once(calls: Sequence[Call[T]]) -> list[Call[T]]:
    """The same, those that wait in Redis without waiting."""
    return [replace(c, args=c.at_once, waits_s=0.0) if c.waits_s else c for c in calls]


def _command(call: Call[Any]) -> tuple[str | int, ...]:
    if call.script is None:
        return call.args
    return ("EVALSHA", call.script.sha, 0, *call.args)


def _known_scripts(answers: list[Any]) -> list[Any]:
    """Raises NoScriptError if it is the answer of one."""
    for answer in answers:
        if isinstance(answer, NoScriptError):
            raise answer
    return answers


def _outcomes(calls: Sequence[Call[T]], answers: list[Any], url: str) -> list[T | Exception]:
    """What each answer means; an error concerns its own call alone."""
    outcomes: list[T | Exception] = []
    for call, answer in zip(calls, answers, strict=True):
        try:
            with _typed_errors(url):
                if isinstance(answer, Exception):
                    raise answer
                outcomes.append(call.parse(answer))
        except Exception as error:  # noqa: BLE001
            outcomes.append(error)
    return outcomes


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
    except redis.AuthenticationError as error:
        raise StoreUnavailable(
            f"Redis at {place} refused the password: {error}; check MASKQ_REDIS_URL"
        ) from error
    except redis.MaxConnectionsError as error:
        raise StoreUnavailable(
            f"this client uses as many connections to Redis at {place} as it may (max_connections in "
            f"MASKQ_REDIS_URL): make fewer calls at a time, or raise it"
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


class _Link:
    """One process's connections, and how many of them are used at a time."""

    def __init__(self, url: str) -> None:
        retry = Retry(_backoff(), _TRIES)
        self.redis: Redis = Redis.from_url(
            url, retry=retry, retry_on_error=list(_OUTAGE), **_CONNECTION
        )
        self.slots = Slots(self.redis.connection_pool.max_connections)


class Ledger:
    """The blocking executor; safe to share between threads, and across a fork."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._link = PerProcess(lambda: _Link(url))
        with _usable_url():
            self._link.get()

    @property
    def redis(self) -> Redis:
        """This process's connections to Redis."""
        return self._link.get().redis

    def run(self, call: Call[T]) -> T:
        with _typed_errors(self._url):
            return call.parse(self._answers((call,))[0])

    def run_many(self, calls: Sequence[Call[T]]) -> list[T]:
        """All calls in one round trip; independent of one another, in order."""
        with _typed_errors(self._url):
            answers = self._answers(calls)
            return [call.parse(answer) for call, answer in zip(calls, answers, strict=True)]

    def run_each(self, calls: Sequence[Call[T]]) -> list[T | Exception]:
        """As `run_many`; of a call that was refused, its error stands in the place of its answer."""
        # Past the slots: whoever waits for wake-ups, and does so one call at a time, must not queue up
        # behind a thousand ordinary calls.
        with _typed_errors(self._url):
            answers = self._sent(self.redis, calls, each=True)
        return _outcomes(calls, answers, self._url)

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
        """Give the connections back; who uses it again connects again."""
        if link := self._link.take():
            link.redis.close()

    def _answers(self, calls: Sequence[Call[Any]]) -> list[Any]:
        link = self._link.get()
        waits_s = max((call.waits_s for call in calls), default=0.0)
        if waits_s:
            with link.slots.reader(waits_s) as free:
                if free:
                    return self._sent(link.redis, calls, each=False)
            calls = _at_once(calls)
        with link.slots.call():
            return self._sent(link.redis, calls, each=False)

    def _sent(self, client: Redis, calls: Sequence[Call[Any]], each: bool) -> list[Any]:
        try:
            return self._send(client, calls, each)
        except NoScriptError:
            for text in {call.script.text for call in calls if call.script}:
                client.script_load(text)
            return self._send(client, calls, each)

    def _send(self, client: Redis, calls: Sequence[Call[Any]], each: bool) -> list[Any]:
        if len(calls) == 1:
            try:
                return [client.execute_command(*_command(calls[0]))]
            except redis.ResponseError as error:
                if not each or isinstance(error, NoScriptError):
                    raise
                return [error]
        with client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*_command(call))
            return _known_scripts(pipe.execute(raise_on_error=not each))


class _AsyncLink:
    """One event loop's connections, and the calls that are in progress."""

    def __init__(self, url: str) -> None:
        retry = AsyncRetry(_backoff(), _TRIES)
        self.redis: AsyncRedis = AsyncRedis.from_url(
            url, retry=retry, retry_on_error=list(_OUTAGE), **_CONNECTION
        )
        self.slots = AsyncSlots(self.redis.connection_pool.max_connections)
        self.tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        for task in (tasks := list(self.tasks)):
            end(task)
        if tasks:
            await asyncio.wait(tasks)
        await self.redis.aclose()


class AsyncLedger:
    """The async executor; any number of event loops and threads may share it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._link = PerLoop(lambda: _AsyncLink(url), _AsyncLink.close)
        with _usable_url():
            redis.asyncio.ConnectionPool.from_url(url)  # connects nothing

    @property
    def redis(self) -> AsyncRedis:
        """The running loop's connections to Redis."""
        return self._link.get().redis

    async def run(self, call: Call[T]) -> T:
        with _typed_errors(self._url):
            return call.parse((await self._answers((call,)))[0])

    async def run_many(self, calls: Sequence[Call[T]]) -> list[T]:
        """All calls in one round trip; independent of one another, in order."""
        with _typed_errors(self._url):
            answers = await self._answers(calls)
            return [call.parse(answer) for call, answer in zip(calls, answers, strict=True)]

    async def run_each(self, calls: Sequence[Call[T]]) -> list[T | Exception]:
        """As `run_many`; of a call that was refused, its error stands in the place of its answer."""
        # Past the slots: whoever waits for wake-ups, and does so one call at a time, must not queue up
        # behind a thousand ordinary calls.
        with _typed_errors(self._url):
            answers = await self._sent(self.redis, calls, each=True)
        return _outcomes(calls, answers, self._url)

    async def close(self) -> None:
        """Give the connections back; who uses it again connects again."""
        await self._link.close()

    async def _answers(self, calls: Sequence[Call[Any]]) -> list[Any]:
        link = self._link.get()
        waits_s = max((call.waits_s for call in calls), default=0.0)
        if waits_s:
            if free := await link.slots.take_reader(waits_s):
                return await apart(
                    self._sent(link.redis, calls, each=False), link.tasks, free, stop=True
                )
            calls = _at_once(calls)
        free = await link.slots.take_call()
        return await apart(self._sent(link.redis, calls, each=False), link.tasks, free, stop=False)

    async def _sent(self, client: AsyncRedis, calls: Sequence[Call[Any]], each: bool) -> list[Any]:
        try:
            return await self._send(client, calls, each)
        except NoScriptError:
            for text in {call.script.text for call in calls if call.script}:
                await client.script_load(text)
            return await self._send(client, calls, each)

    async def _send(self, client: AsyncRedis, calls: Sequence[Call[Any]], each: bool) -> list[Any]:
        if len(calls) == 1:
            try:
                return [await client.execute_command(*_command(calls[0]))]
            except redis.ResponseError as error:
                if not each or isinstance(error, NoScriptError):
                    raise
                return [error]
        async with client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*_command(call))
            return _known_scripts(await pipe.execute(raise_on_error=not each))
