"""One core for the blocking and the async client.

An operation is written once, as a generator that yields what it needs done (an effect) and is sent the
answer. A driver carries the effects out: `BlockingDriver` at once, `AsyncDriver` by awaiting. Which of
the two an object has decides whether `job.wait()` returns a result or something to await.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from maskq.client.signatures import as_method, describe
from maskq.errors import StoreUnavailable
from maskq.ledger import AsyncLedger, Ledger
from maskq.ledger.calls import Call

P = ParamSpec("P")
R = TypeVar("R")

# Pub/sub wakes and the record decides: should a wake-up be lost with its connection, the record is
# read again after this many seconds.
_RECHECK_S = 5.0
_LOST = (RedisConnectionError, RedisTimeoutError)
_LOST_PAUSE_S = 0.2  # before Redis is asked again
_OUTAGE_S = 60.0  # that a Redis which answered before may stay away


@dataclass(frozen=True, slots=True)
class Many:
    """Independent calls in one round trip."""

    calls: Sequence[Call[Any]]


@dataclass(frozen=True, slots=True)
class Blocking:
    """Work that blocks (the object store, files): the async driver gives it to a thread."""

    work: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Until:
    """Ask `call` now and at every wake-up on `channel`, until `ready` says yes or the time is up.

    Its answer is the last one, ready or not. A Redis that goes away meanwhile is waited for, a minute
    at most.
    """

    channel: str
    call: Call[Any]
    ready: Callable[[Any], bool]
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Let time pass."""

    seconds: float


Effect = Call[Any] | Many | Blocking | Until | Pause
Flow = Generator[Effect, Any, R]


class _Pace:
    """How long the next wait may last."""

    def __init__(self, timeout_s: float | None) -> None:
        self._end = None if timeout_s is None else time.monotonic() + timeout_s
        self._answered = time.monotonic()

    def left_s(self) -> float:
        return float("inf") if self._end is None else self._end - time.monotonic()

    def next_s(self) -> float:
        return max(0.0, min(self.left_s(), _RECHECK_S))

    def answered(self) -> None:
        """Redis did."""
        self._answered = time.monotonic()

    def waits_out(self) -> bool:
        """Whether to ask again a Redis that has not answered."""
        return self.left_s() > 0 and time.monotonic() - self._answered < _OUTAGE_S


class BlockingDriver:
    """Carries effects out on the calling thread; safe to share between threads."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def drive(self, flow: Flow[R]) -> R:
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                effect = flow.throw(error) if error else flow.send(answer)
            except StopIteration as stop:
                return cast("R", stop.value)
            answer, error = None, None
            try:
                answer = self._do(effect)
            except Exception as raised:  # noqa: BLE001 - the flow decides what to do about it
                error = raised

    def _do(self, effect: Effect) -> Any:
        match effect:
            case Call():
                return self.ledger.run(effect)
            case Many():
                return self.ledger.run_many(effect.calls)
            case Blocking():
                return effect.work()
            case Pause():
                time.sleep(effect.seconds)
            case Until():
                return self._until(effect)

    def _until(self, effect: Until) -> Any:
        pace = _Pace(effect.timeout_s)
        answer = self.ledger.run(effect.call)
        if effect.ready(answer):
            return answer
        with self.ledger.redis.pubsub() as pubsub:
            while pace.left_s() > 0:
                try:
                    # The confirmation of the subscription is the first wake-up: whatever happened
                    # between the look above and the subscription is seen by the look after it.
                    if not pubsub.subscribed:
                        pubsub.subscribe(effect.channel)
                    pubsub.get_message(timeout=pace.next_s())
                except _LOST:
                    time.sleep(_LOST_PAUSE_S)  # redis-py subscribes again by itself
                try:
                    answer = self.ledger.run(effect.call)
                except StoreUnavailable:
                    if not pace.waits_out():
                        raise
                    continue
                pace.answered()
                if effect.ready(answer):
                    break
        return answer


class AsyncDriver:
    """Carries effects out on the running event loop."""

    def __init__(self, ledger: AsyncLedger) -> None:
        self.ledger = ledger

    async def drive(self, flow: Flow[R]) -> R:
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                effect = flow.throw(error) if error else flow.send(answer)
            except StopIteration as stop:
                return cast("R", stop.value)
            answer, error = None, None
            try:
                answer = await self._do(effect)
            except Exception as raised:  # noqa: BLE001 - the flow decides what to do about it
                error = raised

    async def _do(self, effect: Effect) -> Any:
        match effect:
            case Call():
                return await self.ledger.run(effect)
            case Many():
                return await self.ledger.run_many(effect.calls)
            case Blocking():
                return await asyncio.to_thread(effect.work)
            case Pause():
                await asyncio.sleep(effect.seconds)
            case Until():
                return await self._until(effect)

    async def _until(self, effect: Until) -> Any:
        pace = _Pace(effect.timeout_s)
        answer = await self.ledger.run(effect.call)
        if effect.ready(answer):
            return answer
        async with self.ledger.redis.pubsub() as pubsub:
            while pace.left_s() > 0:
                try:
                    if not pubsub.subscribed:
                        await pubsub.subscribe(effect.channel)
                    await pubsub.get_message(timeout=pace.next_s())
                except _LOST:
                    await asyncio.sleep(_LOST_PAUSE_S)
                try:
                    answer = await self.ledger.run(effect.call)
                except StoreUnavailable:
                    if not pace.waits_out():
                        raise
                    continue
                pace.answered()
                if effect.ready(answer):
                    break
        return answer


class RunsBlocking:
    """An object whose operations return their result."""

    _driver: BlockingDriver

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _make_methods(cls, awaited=False)


class RunsAsync:
    """An object whose operations return something to await."""

    _driver: AsyncDriver

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _make_methods(cls, awaited=True)


class operation(Generic[P, R]):
    """A method written once as a flow. A class that runs blocking or async has a function for it."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[R]]) -> None:
        self.flow = flow
        functools.update_wrapper(cast("Any", self), flow)

    # For type checkers: where this is asked, `_make_methods` has put a function in its place.
    @overload
    def __get__(self, obj: RunsBlocking, owner: type | None = None) -> Callable[P, R]: ...
    @overload
    def __get__(
        self, obj: RunsAsync, owner: type | None = None
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, obj: object, owner: type | None = None) -> Callable[P, Any]: ...
    def __get__(self, obj: Any, owner: type | None = None) -> Callable[P, Any]:
        return cast("Callable[P, Any]", self.flow)  # of a core, which runs neither way


def _make_methods(cls: type, *, awaited: bool) -> None:
    """Functions instead of operations, so that `help`, `inspect` and mocks see what callers call."""
    for value in vars(cls).copy().values():
        if inspect.isfunction(value):
            describe(cls, value)
    for base in cls.__mro__:
        for name, value in vars(base).items():
            if isinstance(value, operation) and inspect.getattr_static(cls, name) is value:
                setattr(cls, name, as_method(cls, value.flow, awaited=awaited))
