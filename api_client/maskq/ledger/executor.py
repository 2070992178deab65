"""Carry calls out: blocking and async, the same calls, the same errors."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from maskq.contract import FailureCode
from maskq.errors import QueueFull, StoreUnavailable
from maskq.ledger import connection
from maskq.ledger.calls import Call
from maskq.ledger.redis_url import NAME, RedisUrl

T = TypeVar("T")
U = TypeVar("U")

# Every call may be sent twice, so a lost answer is simply asked for again.
_TRIES = 3
_SERVERS = 2  # that may have to be taught the scripts: in a failover the first one is not the last
_OUTAGE = (redis.ConnectionError, redis.TimeoutError)


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(cap=1.0, base=0.05)


def _command(call: Call[Any]) -> tuple[str | int, ...]:
    if call.script is None:
        return call.args
    return ("EVALSHA", call.script.sha, 0, *call.args)


def _command_when_new(call: Call[Any]) -> tuple[str | int, ...]:
    """With the script itself: of a server that does not know it, or of the next one in a failover."""
    text = call.script.text if call.script else ""
    return ("EVAL", text, 0, *(call.args_when_new or call.args))


@contextmanager
def _typed_errors(url: RedisUrl) -> Iterator[None]:
    """What the person who configured the URL needs to read, without its password."""
    try:
        yield
    except redis.AuthenticationError as error:
        raise _refused(f"refused the password: {error}; check {NAME}", url) from error
    except _OUTAGE as error:
        if tls := _tls_error(error):
            raise _refused(_tls_words(tls), url) from error
        if isinstance(error, connection.Interrupted):
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


class Ledger:
    """The blocking executor; safe to share between threads."""

    def __init__(self, url: str | RedisUrl) -> None:
        """Connects with the first call. Raises InvalidRequest for a URL that cannot be used."""
        self._url = RedisUrl.parse(url) if isinstance(url, str) else url
        pool = connection.pool(
            self._url,
            decode_responses=True,
            retry=Retry(_backoff(), _TRIES),
            retry_on_error=list(_OUTAGE),
        )
        self.redis: redis.Redis = redis.Redis.from_pool(pool)

    def run(self, call: Call[T]) -> T:
        with _typed_errors(self._url):
            return call.parse(self._send(call))

    def run_many(self, calls: Sequence[Call[T]]) -> list[T]:
        """All calls in one round trip; independent of one another, in order."""
        with _typed_errors(self._url):
            answers = self._known_pipeline(calls)
            return [call.parse(answer) for call, answer in zip(calls, answers, strict=True)]

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
        self.redis.close()

    def _send(self, call: Call[Any]) -> Any:
        try:
            return self.redis.execute_command(*_command(call))
        except NoScriptError:
            answer = self.redis.execute_command(*_command_when_new(call))
            self._load([call])  # Redis forgets what came by EVAL when it has seen enough others
            return answer

    def _known_pipeline(self, calls: Sequence[Call[Any]]) -> list[Any]:
        for _ in range(_SERVERS):
            with suppress(NoScriptError):
                return self._pipeline(calls)
            self._load(calls)
        return self._pipeline(calls)

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

    def __init__(self, url: str | RedisUrl) -> None:
        """Connects with the first call. Raises InvalidRequest for a URL that cannot be used."""
        self._url = RedisUrl.parse(url) if isinstance(url, str) else url
        pool = connection.async_pool(
            self._url,
            decode_responses=True,
            retry=AsyncRetry(_backoff(), _TRIES),
            retry_on_error=list(_OUTAGE),
        )
        self.redis: redis.asyncio.Redis = redis.asyncio.Redis.from_pool(pool)

    async def run(self, call: Call[T]) -> T:
        with _typed_errors(self._url):
            return call.parse(await self._send(call))

    async def run_many(self, calls: Sequence[Call[T]]) -> list[T]:
        """All calls in one round trip; independent of one another, in order."""
        with _typed_errors(self._url):
            answers = await self._known_pipeline(calls)
            return [call.parse(answer) for call, answer in zip(calls, answers, strict=True)]

    async def close(self) -> None:
        await self.redis.aclose()

    async def _send(self, call: Call[Any]) -> Any:
        try:
            return await self.redis.execute_command(*_command(call))
        except NoScriptError:
            answer = await self.redis.execute_command(*_command_when_new(call))
            await self._load([call])
            return answer

    async def _known_pipeline(self, calls: Sequence[Call[Any]]) -> list[Any]:
        for _ in range(_SERVERS):
            with suppress(NoScriptError):
                return await self._pipeline(calls)
            await self._load(calls)
        return await self._pipeline(calls)

    async def _pipeline(self, calls: Sequence[Call[Any]]) -> list[Any]:
        async with self.redis.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*_command(call))
            return await pipe.execute()

    async def _load(self, calls: Sequence[Call[Any]]) -> None:
        for text in {call.script.text for call in calls if call.script}:
            await self.redis.script_load(text)
