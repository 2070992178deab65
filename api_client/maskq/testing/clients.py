"""`Client` and `AsyncClient` on a deployment in memory."""

from __future__ import annotations

from typing import Any, NoReturn, Self, TypeVar

from maskq.client.async_client import AsyncClient
from maskq.client.client import Client
from maskq.client.operations.flow import AsyncDriver, BlockingDriver, Effect, Flow
from maskq.client.session import DIRECT_ATTRIBUTES, Session
from maskq.errors import InvalidRequest
from maskq.testing.deployment.deployment import FakeDeployment
from maskq.testing.service import FakeService

T = TypeVar("T")


class FakeClient(Client):
    """A Client for unit tests: no Redis, no S3, no worker. `fake` says what becomes of its jobs.

        client = FakeClient()
        client.fake.fail_next("invalid_image")

    It is the real class on a deployment in memory. What needs access to Redis and S3 (API keys,
    retiring models, deleting a tenant, limits of tenants, `settings`, `objects`) raises
    InvalidRequest, as over HTTP.
    """

    def __init__(self, service: FakeService | None = None) -> None:
        """`service`: shared with other clients; default: one of its own."""
        self.fake = service or FakeService()
        session: Any = _BlockingSession(self.fake)
        self.session = session
        self._driver = session.driver

    @classmethod
    def from_env(cls, **_: Any) -> Self:
        """A client on a deployment of its own; the environment is not read."""
        return cls()

    def __reduce__(self) -> NoReturn:
        _refuse_pickling()


class FakeAsyncClient(AsyncClient):
    """FakeClient, awaited. Both can share a service: `FakeAsyncClient(client.fake)`."""

    def __init__(self, service: FakeService | None = None) -> None:
        """`service`: shared with other clients; default: one of its own."""
        self.fake = service or FakeService()
        session: Any = _AsyncSession(self.fake)
        self.session = session
        self._driver = session.driver

    @classmethod
    def from_env(cls, **_: Any) -> Self:
        """A client on a deployment of its own; the environment is not read."""
        return cls()

    def __reduce__(self) -> NoReturn:
        _refuse_pickling()


class _FakeDriver(BlockingDriver):
    def perform(self, effect: Effect) -> NoReturn:
        _refuse("this operation")


class _FakeAsyncDriver(AsyncDriver):
    async def perform(self, effect: Effect) -> NoReturn:
        _refuse("this operation")


class _FakeSession(Session):
    def __init__(self, service: FakeService) -> None:
        self.deployment = FakeDeployment(service)

    def __getattr__(self, name: str) -> Any:
        if name in DIRECT_ATTRIBUTES:
            _refuse(f"`{name}` of a client")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class _BlockingSession(_FakeSession):
    def __init__(self, service: FakeService) -> None:
        super().__init__(service)
        self.driver = _FakeDriver()

    def drive(self, flow: Flow[T]) -> T:
        """Run a flow; returns what it returns."""
        answer: T = self.driver.drive(flow)
        return answer

    def close(self) -> None:
        """Nothing to do: there are no connections."""


class _AsyncSession(_FakeSession):
    def __init__(self, service: FakeService) -> None:
        super().__init__(service)
        self.driver = _FakeAsyncDriver()

    async def drive(self, flow: Flow[T]) -> T:
        """Run a flow; returns what it returns."""
        answer: T = await self.driver.drive(flow)
        return answer

    async def close(self) -> None:
        """Nothing to do: there are no connections."""


def _refuse(what: str) -> NoReturn:
    raise InvalidRequest(
        f"{what} needs access to Redis and S3, which a fake client does not have: use a real stack, "
        f"for example by the pytest fixture maskq_stack"
    )


def _refuse_pickling() -> NoReturn:
    raise InvalidRequest(
        "a fake client cannot be pickled, because its deployment is in the memory of this process: "
        "make clients in the other process with the fixture maskq_stack"
    )
