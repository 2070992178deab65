"""Send calls to Redis: Ledger blocks, AsyncLedger is awaited; calls and errors are the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

import redis
import redis.asyncio
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from maskq.ledger.calls.base import Call
from maskq.ledger.commands import at_once, command, command_when_new, known_scripts, outcomes
from maskq.ledger.connections import pools
from maskq.ledger.connections.redis_url import RedisUrl
from maskq.ledger.connections.slots import AsyncSlots, Slots, apart, end
from maskq.ledger.errors import OUTAGE, typed_errors
from maskq.per_process import PerLoop, PerProcess

if TYPE_CHECKING:
    from maskq.settings import Settings

T = TypeVar("T")
U = TypeVar("U")

# Every call may be sent twice, so a call whose answer was lost is sent again.
_TRIES = 3
_SERVERS = 2  # that may lack the scripts during one call: a failover brings a second one


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(cap=1.0, base=0.05)


class _Link:
    """One process's connections, and how many of them are used at a time."""

    def __init__(self, url: RedisUrl) -> None:
        pool = pools.pool(
            url,
            decode_responses=True,
            retry=Retry(_backoff(), _TRIES),
            retry_on_error=list(OUTAGE),
        )
        self.redis: Redis = Redis.from_pool(pool)
        self.slots = Slots(pool.max_connections)


class Ledger:
    """A deployment's ledger for callers that block; safe to share between threads and across a fork."""

    def __init__(self, url: str | RedisUrl, prefix: str) -> None:
        """Connects with the first call. Raises InvalidRequest for an invalid URL."""
        self.prefix = prefix
        self._url = parsed = RedisUrl.parse(url) if isinstance(url, str) else url
        self._link = PerProcess(lambda: _Link(parsed))

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The ledger of the deployment that the settings name. Raises InvalidRequest."""
        return cls(RedisUrl.of(settings), settings.key_prefix)

    @property
    def redis(self) -> Redis:
        """This process's connections to Redis."""
        return self._link.get().redis

    def run(self, call: Call[T]) -> T:
        with typed_errors(self._url):
            return call.parse(self._answers((call,))[0])

    def run_many(self, calls: Sequence[Call[T]]) -> list[T]:
        """All calls in one round trip: independent of one another, answers in order."""
        with typed_errors(self._url):
            answers = self._answers(calls)
            return [call.parse(answer) for call, answer in zip(calls, answers, strict=True)]

    def run_each(self, calls: Sequence[Call[T]]) -> list[T | Exception]:
        """As `run_many`, but a call that fails has its error in place of its answer."""
        # Without a slot: the one reader of wake-ups must not queue behind a thousand ordinary calls.
        with typed_errors(self._url):
            answers = self._sent(self.redis, calls, each=True)
        return outcomes(calls, answers, self._url)

    def run_both(self, first: Call[T], second: Call[U]) -> tuple[T, U]:
        """Two calls with answers of different types, in one round trip."""
        both: Sequence[Call[Any]] = (first, second)
        one, other = self.run_many(both)
        return one, other

    @property
    def place(self) -> str:
        """Redis' address for messages, without user and password."""
        return self._url.place

    @property
    def user(self) -> str:
        """The Redis user."""
        return self._url.username or "default"

    def close(self) -> None:
        """Close the connections. The next call connects again."""
        if link := self._link.take():
            link.redis.close()

    def _answers(self, calls: Sequence[Call[Any]]) -> list[Any]:
        link = self._link.get()
        waits_s = max((call.waits_s for call in calls), default=0.0)
        if waits_s:
            with link.slots.reader(waits_s) as free:
                if free:
                    return self._sent(link.redis, calls, each=False)
            calls = at_once(calls)
        with link.slots.call():
            return self._sent(link.redis, calls, each=False)

    def _sent(self, client: Redis, calls: Sequence[Call[Any]], each: bool) -> list[Any]:
        for _ in range(_SERVERS):
            with suppress(NoScriptError):
                return self._send(client, calls, each)
            if len(calls) == 1 and not each:
                answers = [client.execute_command(*command_when_new(calls[0], self.prefix))]
                self._load(client, calls)  # Redis forgets scripts that came by EVAL after a while
                return answers
            self._load(client, calls)
        return self._send(client, calls, each)

    def _load(self, client: Redis, calls: Sequence[Call[Any]]) -> None:
        for text in {call.script.text for call in calls if call.script}:
            client.script_load(text)

    def _send(self, client: Redis, calls: Sequence[Call[Any]], each: bool) -> list[Any]:
        if len(calls) == 1:
            try:
                return [client.execute_command(*command(calls[0], self.prefix))]
            except redis.ResponseError as error:
                if not each or isinstance(error, NoScriptError):
                    raise
                return [error]
        with client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*command(call, self.prefix))
            return known_scripts(pipe.execute(raise_on_error=not each))


class _AsyncLink:
    """One event loop's connections, and the calls that are in progress."""

    def __init__(self, url: RedisUrl) -> None:
        pool = pools.async_pool(
            url,
            decode_responses=True,
            retry=AsyncRetry(_backoff(), _TRIES),
            retry_on_error=list(OUTAGE),
        )
        self.redis: AsyncRedis = AsyncRedis.from_pool(pool)
        self.slots = AsyncSlots(pool.max_connections)
        self.tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        for task in (tasks := list(self.tasks)):
            end(task)
        if tasks:
            await asyncio.wait(tasks)
        await self.redis.aclose()


class AsyncLedger:
    """A deployment's ledger for callers that await; event loops and threads may share it."""

    def __init__(self, url: str | RedisUrl, prefix: str) -> None:
        """Connects with the first call. Raises InvalidRequest for an invalid URL."""
        self.prefix = prefix
        self._url = parsed = RedisUrl.parse(url) if isinstance(url, str) else url
        self._link = PerLoop(lambda: _AsyncLink(parsed), _AsyncLink.close)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The ledger of the deployment that the settings name. Raises InvalidRequest."""
        return cls(RedisUrl.of(settings), settings.key_prefix)

    @property
    def redis(self) -> AsyncRedis:
        """The running loop's connections to Redis."""
        return self._link.get().redis

    async def run(self, call: Call[T]) -> T:
        with typed_errors(self._url):
            return call.parse((await self._answers((call,)))[0])

    async def run_many(self, calls: Sequence[Call[T]]) -> list[T]:
        """All calls in one round trip: independent of one another, answers in order."""
        with typed_errors(self._url):
            answers = await self._answers(calls)
            return [call.parse(answer) for call, answer in zip(calls, answers, strict=True)]

    async def run_both(self, first: Call[T], second: Call[U]) -> tuple[T, U]:
        """Two calls with answers of different types, in one round trip."""
        both: Sequence[Call[Any]] = (first, second)
        one, other = await self.run_many(both)
        return one, other

    async def run_each(self, calls: Sequence[Call[T]]) -> list[T | Exception]:
        """As `run_many`, but a call that fails has its error in place of its answer."""
        # Without a slot: the one reader of wake-ups must not queue behind a thousand ordinary calls.
        with typed_errors(self._url):
            answers = await self._sent(self.redis, calls, each=True)
        return outcomes(calls, answers, self._url)

    async def close(self) -> None:
        """Close the connections. The next call connects again."""
        await self._link.close()

    async def _answers(self, calls: Sequence[Call[Any]]) -> list[Any]:
        link = self._link.get()
        waits_s = max((call.waits_s for call in calls), default=0.0)
        if waits_s:
            if free := await link.slots.take_reader(waits_s):
                return await apart(
                    self._sent(link.redis, calls, each=False), link.tasks, free, stop=True
                )
            calls = at_once(calls)
        free = await link.slots.take_call()
        return await apart(self._sent(link.redis, calls, each=False), link.tasks, free, stop=False)

    async def _sent(self, client: AsyncRedis, calls: Sequence[Call[Any]], each: bool) -> list[Any]:
        for _ in range(_SERVERS):
            with suppress(NoScriptError):
                return await self._send(client, calls, each)
            if len(calls) == 1 and not each:
                answers = [await client.execute_command(*command_when_new(calls[0], self.prefix))]
                await self._load(
                    client, calls
                )  # Redis forgets scripts that came by EVAL after a while
                return answers
            await self._load(client, calls)
        return await self._send(client, calls, each)

    async def _load(self, client: AsyncRedis, calls: Sequence[Call[Any]]) -> None:
        for text in {call.script.text for call in calls if call.script}:
            await client.script_load(text)

    async def _send(self, client: AsyncRedis, calls: Sequence[Call[Any]], each: bool) -> list[Any]:
        if len(calls) == 1:
            try:
                return [await client.execute_command(*command(calls[0], self.prefix))]
            except redis.ResponseError as error:
                if not each or isinstance(error, NoScriptError):
                    raise
                return [error]
        async with client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*command(call, self.prefix))
            return known_scripts(await pipe.execute(raise_on_error=not each))
