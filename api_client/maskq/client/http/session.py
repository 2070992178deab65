"""What a client that calls the gateway shares with its jobs, batches and results."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

from pydantic import SecretStr

from maskq.client.http.asking import Gateway
from maskq.client.http.deployment import HttpDeployment
from maskq.client.operations.flow import AsyncDriver, BlockingDriver, Effect, Flow
from maskq.client.session import DIRECT_ATTRIBUTES, Session
from maskq.errors import InvalidRequest
from maskq.http.address import GatewayAddress
from maskq.http.request import CloseStream, OpenStream, ReadStream, Request
from maskq.http.transport import AsyncHttpTransport, HttpTransport

T = TypeVar("T")


class HttpDriver(BlockingDriver):
    """Blocks. Thread-safe."""

    def __init__(self, transport: HttpTransport) -> None:
        self._transport = transport

    def perform(self, effect: Effect) -> Any:
        match effect:
            case Request():
                return self._transport.send(effect)
            case OpenStream():
                return self._transport.open(effect)
            case ReadStream():
                return effect.stream.read()
            case CloseStream():
                return effect.stream.close()
        _refuse("this operation")


class HttpAsyncDriver(AsyncDriver):
    """Awaits; each event loop has its own connections."""

    def __init__(self, transport: AsyncHttpTransport) -> None:
        self._transport = transport

    async def perform(self, effect: Effect) -> Any:
        match effect:
            case Request():
                return await self._transport.send(effect)
            case OpenStream():
                return await self._transport.open(effect)
            case ReadStream():
                return await effect.stream.read()
            case CloseStream():
                return await effect.stream.close()
        _refuse("this operation")


class HttpSession(Session):
    """The part that blocking and async clients have in common."""

    def __init__(self, address: GatewayAddress) -> None:
        self.address = address
        self.deployment = HttpDeployment(Gateway(address))

    def __getattr__(self, name: str) -> Any:
        if name in DIRECT_ATTRIBUTES:
            _refuse(f"`{name}` of a client")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class BlockingHttpSession(HttpSession):
    """The session of a Client. Thread-safe and fork-safe."""

    def __init__(self, address: GatewayAddress, api_key: SecretStr) -> None:
        super().__init__(address)
        self._transport = HttpTransport(address, api_key)
        self.driver = HttpDriver(self._transport)

    def drive(self, flow: Flow[T]) -> T:
        """Run a flow; returns what it returns."""
        answer: T = self.driver.drive(flow)
        return answer

    def close(self) -> None:
        """Close this process's connections; the next use connects again."""
        self._transport.close()


class AsyncHttpSession(HttpSession):
    """The session of an AsyncClient. Event loops, threads and processes may share it."""

    def __init__(self, address: GatewayAddress, api_key: SecretStr) -> None:
        super().__init__(address)
        self._transport = AsyncHttpTransport(address, api_key)
        self.driver = HttpAsyncDriver(self._transport)

    async def drive(self, flow: Flow[T]) -> T:
        """Run a flow; returns what it returns."""
        answer: T = await self.driver.drive(flow)
        return answer

    async def close(self) -> None:
        """Close the event loops' connections; the next use connects again."""
        await self._transport.close()


def _refuse(what: str) -> NoReturn:
    raise InvalidRequest(
        f"{what} needs access to Redis and S3, and this client calls a gateway: use a client with "
        f"MASKQ_REDIS_URL set (on the command line: --transport direct)"
    )
