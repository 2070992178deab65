"""Operations that are written once and run blocking or async.

An operation is a generator: it yields an effect, such as a call to Redis or a request to the gateway,
and receives the answer. A driver performs the effects: `BlockingDriver` blocks, `AsyncDriver` awaits.
An object's driver decides whether `job.wait()` returns a result or an awaitable. `client/direct` and
`client/http` have drivers that reach Redis and S3, or the gateway.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from maskq.client.operations.signatures import as_method, describe
from maskq.http.request import CloseStream, OpenStream, ReadStream, Request
from maskq.ledger.calls import Call

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Independent calls in one round trip."""

    calls: Sequence[Call[Any]]


@dataclass(frozen=True, slots=True)
class RunBlocking:
    """Blocking work (the object store, files); the async driver runs it in a thread."""

    work: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Run `call` now and at every wake-up on `channel`, until `ready(answer)` or the timeout.

    The answer is the last one, ready or not. An outage of Redis is tolerated for a minute.
    """

    channel: str
    call: Call[Any]
    ready: Callable[[Any], bool]
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Together:
    """Run flows at the same time, at most eight. The answer is each one's result or error, in order."""

    flows: Sequence[Generator[Any, Any, Any]]


Effect = (
    Call[Any]
    | Pipeline
    | WaitFor
    | Request
    | OpenStream
    | ReadStream
    | CloseStream
    | RunBlocking
    | Sleep
    | Together
)
Flow = Generator[Effect, Any, R]

_TOGETHER = 8


class Deadline:
    """The time at which a timeout ends; None: never."""

    def __init__(self, timeout_s: float | None) -> None:
        self._end = None if timeout_s is None else time.monotonic() + timeout_s

    @property
    def left_s(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    @property
    def is_over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end


class BlockingDriver(ABC):
    """Performs effects on the calling thread. Thread-safe."""

    def drive(self, flow: Flow[R]) -> R:
        """Run the flow; returns what it returns and raises what it raises."""
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
            except Exception as raised:  # noqa: BLE001 - the flow handles it
                error = raised

    @abstractmethod
    def perform(self, effect: Effect) -> Any:
        """Perform an effect on Redis or the gateway; returns its answer."""

    def _do(self, effect: Effect) -> Any:
        match effect:
            case RunBlocking():
                return effect.work()
            case Sleep():
                return time.sleep(effect.seconds)
            case Together():
                if not effect.flows:
                    return []
                with ThreadPoolExecutor(min(_TOGETHER, len(effect.flows))) as pool:
                    return list(pool.map(self._outcome, effect.flows))
        return self.perform(effect)

    def _outcome(self, flow: Flow[Any]) -> Any:
        try:
            return self.drive(flow)
        except Exception as error:  # noqa: BLE001 - the flow that asked for it decides
            return error


class AsyncDriver(ABC):
    """Performs effects on the running event loop; each loop has its own connections."""

    async def drive(self, flow: Flow[R]) -> R:
        """Run the flow; returns what it returns and raises what it raises."""
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
            except Exception as raised:  # noqa: BLE001 - the flow handles it
                error = raised

    @abstractmethod
    async def perform(self, effect: Effect) -> Any:
        """Perform an effect on Redis or the gateway; returns its answer."""

    async def _do(self, effect: Effect) -> Any:
        match effect:
            case RunBlocking():
                return await asyncio.to_thread(effect.work)
            case Sleep():
                return await asyncio.sleep(effect.seconds)
            case Together():
                slots = asyncio.Semaphore(_TOGETHER)
                return await asyncio.gather(*(self._outcome(flow, slots) for flow in effect.flows))
        return await self.perform(effect)

    async def _outcome(self, flow: Flow[Any], slots: asyncio.Semaphore) -> Any:
        async with slots:
            try:
                return await self.drive(flow)
            except Exception as error:  # noqa: BLE001 - the flow that asked for it decides
                return error


class RunsBlocking:
    """An object whose operations return their result."""

    _driver: BlockingDriver

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _make_methods(cls, awaited=False)


class RunsAsync:
    """An object whose operations return awaitables."""

    _driver: AsyncDriver

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _make_methods(cls, awaited=True)


class operation(Generic[P, R]):
    """A method written as a flow. RunsBlocking and RunsAsync replace it with a function."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[R]]) -> None:
        self.flow = flow
        functools.update_wrapper(cast("Any", self), flow)

    # For type checkers: at run time `_make_methods` has replaced the operation with a function.
    @overload
    def __get__(self, obj: RunsBlocking, owner: type | None = None) -> Callable[P, R]: ...
    @overload
    def __get__(
        self, obj: RunsAsync, owner: type | None = None
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, obj: object, owner: type | None = None) -> Callable[P, Any]: ...
    def __get__(self, obj: Any, owner: type | None = None) -> Callable[P, Any]:
        return cast(
            "Callable[P, Any]", self.flow
        )  # of a class that is neither RunsBlocking nor RunsAsync


def _make_methods(cls: type, *, awaited: bool) -> None:
    """Replace operations with functions, so that `help`, `inspect` and mocks see their signatures."""
    for value in vars(cls).copy().values():
        if inspect.isfunction(value):
            describe(cls, value)
    for base in cls.__mro__:
        for name, value in vars(base).items():
            if isinstance(value, operation) and inspect.getattr_static(cls, name) is value:
                setattr(cls, name, as_method(cls, value.flow, awaited=awaited))
