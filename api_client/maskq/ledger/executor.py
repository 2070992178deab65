"""Carry calls out: blocking and async, the same calls, the same errors."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import redis
import redis.asyncio
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from maskq.contract import FailureCode
from maskq.errors import InvalidRequest, QueueFull, StoreUnavailable
from maskq.ledger.calls import Argument, Call
from maskq.ledger.connections import pools
from maskq.ledger.connections.redis_url import NAME, RedisUrl
from maskq.ledger.connections.slots import AsyncSlots, Slots, apart, end
from maskq.ledger.keys import Key
from maskq.per_process import PerLoop, PerProcess

if TYPE_CHECKING:
    from maskq.settings import Settings

T = TypeVar("T")
U = TypeVar("U")

# Every call may be sent twice, so a lost answer is simply asked for again.
_TRIES = 3
_SERVERS = 2  # that may have to be taught the scripts: in a failover the first one is not the last
_OUTAGE = (redis.ConnectionError, redis.TimeoutError)


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(cap=1.0, base=0.05)


def _at_once(calls: Sequence[Call[T]]) -> list[Call[T]]:
    """The same, those that wait in Redis without waiting."""
    return [replace(c, args=c.at_once, waits_s=0.0) if c.waits_s else c for c in calls]


def _command(call: Call[Any], prefix: str) -> list[str | int]:
    args = _named(call.args, prefix)
    return args if call.script is None else ["EVALSHA", call.script.sha, 0, prefix, *args]


def _command_when_new(call: Call[Any], prefix: str) -> list[str | int]:
    """With the script's text, for a server that does not know the script yet."""
    text = call.script.text if call.script else ""
    return ["EVAL", text, 0, prefix, *_named(call.args_when_new or call.args, prefix)]


def _named(args: Sequence[Argument], prefix: str) -> list[str | int]:
    return [arg.within(prefix) if isinstance(arg, Key) else arg for arg in args]


def _known_scripts(answers: list[Any]) -> list[Any]:
    """Raises NoScriptError if it is the answer of one."""
    for answer in answers:
        if isinstance(answer, NoScriptError):
            raise answer
    return answers


def _outcomes(calls: Sequence[Call[T]], answers: list[Any], url: RedisUrl) -> list[T | Exception]:
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
def _typed_errors(url: RedisUrl) -> Iterator[None]:
    """What the person who configured the URL needs to read, without its password."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{error.object!a} is not text that can be sent: {error}") from None
    except redis.AuthenticationError as error:
        raise _refused(f"refused the password: {error}; check {NAME}", url) from error
    except redis.MaxConnectionsError as error:
        raise StoreUnavailable(
            f"this client uses as many connections to Redis at {url.place} as it may (max_connections "
            f"in {NAME}): make fewer calls at a time, or raise it"
        ) from error
    except _OUTAGE as error:
        if tls := _tls_error(error):
            raise _refused(_tls_words(tls), url) from error
        if isinstance(error, pools.Interrupted):
            raise StoreUnavailable(f"Redis at {url.place} cannot do it now: {error}") from error
        runs = "it runs" if url.tls is None else "it runs, with TLS"
        raise StoreUnavailable(
            f"Redis at {url.place} cannot be reached: {error}; check {NAME} and that {runs}"
        ) from error
    except redis.OutOfMemoryError as error:
        raise _full(url) from error
    except redis.ResponseError as error:
        if str(error).startswith(("OOM", "-OOM")) or "maxmemory" in str(error):
            raise _full(url) from error
        if is_missing_right(error):
            user = url.username or "default"
            said = (
                f"does not allow user {user!r} what this needs: {error}; grant it (docs/redis.md)"
            )
            raise _refused(said, url) from error
        raise _refused(f"refused the call: {error}", url) from error


def _full(url: RedisUrl) -> QueueFull:
    return QueueFull(f"Redis at {url.place} is at its memory limit; submit again later")


def _refused(what: str, url: RedisUrl) -> StoreUnavailable:
    """No outage: it stays so until somebody changes the settings or the rights."""
    raised = StoreUnavailable(f"Redis at {url.place} {what}")
    raised.code = FailureCode.ACCESS_DENIED
    return raised


def is_missing_right(error: redis.ResponseError) -> bool:
    """Whether the ACL forbids it, to the caller or within a script."""
    return (
        isinstance(error, redis.exceptions.NoPermissionError)
        or "NOPERM" in str(error)
        or "ACL failure in script" in str(error)
        or "user executing the script can't" in str(error)  # Redis 7.0
    )


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """The reason, if TLS could not be agreed on."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            lost = isinstance(seen, ssl.SSLEOFError | ssl.SSLZeroReturnError)
            return None if lost else seen
        seen = seen.__cause__ or seen.__context__
    return None


def _tls_words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"shows a certificate that is not trusted here: {error.verify_message}; name who signs "
            f"it in MASKQ_REDIS_CA_FILE, and the host in {NAME} as the certificate has it"
        )
    return f"and this process do not agree on TLS: {error.reason or error}; check {NAME}"


class _Link:
    """One process's connections, and how many of them are used at a time."""

    def __init__(self, url: RedisUrl) -> None:
        pool = pools.pool(
            url,
            decode_responses=True,
            retry=Retry(_backoff(), _TRIES),
            retry_on_error=list(_OUTAGE),
        )
        self.redis: Redis = Redis.from_pool(pool)
        self.slots = Slots(pool.max_connections)


class Ledger:
    """A deployment's ledger for callers that block; safe to share between threads and across a fork."""

    def __init__(self, url: str | RedisUrl, prefix: str) -> None:
        """Connects with the first call. Raises InvalidRequest for a URL that cannot be used."""
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
        with _typed_errors(self._url):
            return call.parse(self._answers((call,))[0])

    def run_many(self, calls: Sequence[Call[T]]) -> list[T]:
        """All calls in one round trip; independent of one another, in order."""
        with _typed_errors(self._url):
            answers = self._answers(calls)
            return [call.parse(answer) for call, answer in zip(calls, answers, strict=True)]

    def run_each(self, calls: Sequence[Call[T]]) -> list[T | Exception]:
        """As `run_many`; of a call that was refused, its error stands in the place of its answer."""
        # Without a slot: the one reader of wake-ups must not queue behind a thousand ordinary calls.
        with _typed_errors(self._url):
            answers = self._sent(self.redis, calls, each=True)
        return _outcomes(calls, answers, self._url)

    def run_both(self, first: Call[T], second: Call[U]) -> tuple[T, U]:
        """Two calls whose answers differ, in one round trip."""
        both: Sequence[Call[Any]] = (first, second)
        one, other = self.run_many(both)
        return one, other

    @property
    def place(self) -> str:
        """Where Redis is, for people."""
        return self._url.place

    @property
    def user(self) -> str:
        """Who asks."""
        return self._url.username or "default"

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
        for _ in range(_SERVERS):
            with suppress(NoScriptError):
                return self._send(client, calls, each)
            if len(calls) == 1 and not each:
                answers = [client.execute_command(*_command_when_new(calls[0], self.prefix))]
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
                return [client.execute_command(*_command(calls[0], self.prefix))]
            except redis.ResponseError as error:
                if not each or isinstance(error, NoScriptError):
                    raise
                return [error]
        with client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*_command(call, self.prefix))
            return _known_scripts(pipe.execute(raise_on_error=not each))


class _AsyncLink:
    """One event loop's connections, and the calls that are in progress."""

    def __init__(self, url: RedisUrl) -> None:
        pool = pools.async_pool(
            url,
            decode_responses=True,
            retry=AsyncRetry(_backoff(), _TRIES),
            retry_on_error=list(_OUTAGE),
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
        """Connects with the first call. Raises InvalidRequest for a URL that cannot be used."""
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
        with _typed_errors(self._url):
            return call.parse((await self._answers((call,)))[0])

    async def run_many(self, calls: Sequence[Call[T]]) -> list[T]:
        """All calls in one round trip; independent of one another, in order."""
        with _typed_errors(self._url):
            answers = await self._answers(calls)
            return [call.parse(answer) for call, answer in zip(calls, answers, strict=True)]

    async def run_each(self, calls: Sequence[Call[T]]) -> list[T | Exception]:
        """As `run_many`; of a call that was refused, its error stands in the place of its answer."""
        # Without a slot: the one reader of wake-ups must not queue behind a thousand ordinary calls.
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
        for _ in range(_SERVERS):
            with suppress(NoScriptError):
                return await self._send(client, calls, each)
            if len(calls) == 1 and not each:
                answers = [await client.execute_command(*_command_when_new(calls[0], self.prefix))]
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
                return [await client.execute_command(*_command(calls[0], self.prefix))]
            except redis.ResponseError as error:
                if not each or isinstance(error, NoScriptError):
                    raise
                return [error]
        async with client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*_command(call, self.prefix))
            return _known_scripts(await pipe.execute(raise_on_error=not each))
