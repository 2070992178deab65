"""Sends requests by httpx2: HttpTransport blocks, AsyncHttpTransport is awaited.

httpx2 serves both worlds with one interface. It reads HTTPS_PROXY and NO_PROXY. Certificates are
checked against the system's CAs or those of SSL_CERT_FILE. No redirect is followed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import httpx2
from pydantic import SecretStr

from maskq.errors import StoreUnavailable
from maskq.http.address import GatewayAddress
from maskq.http.request import Answer, Message, OpenStream, Request
from maskq.http.sse import SseParser
from maskq.per_process import PerLoop, PerProcess

# They would log URLs, which may be presigned, and headers, which hold the API key.
for _name in ("httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)

_CONNECT_S: Final = 5.0
_IDLE_S: Final = 4.0  # below the five seconds after which the gateway closes an idle connection
_LIMITS: Final = httpx2.Limits(
    max_connections=None, max_keepalive_connections=32, keepalive_expiry=_IDLE_S
)


class _Requests:
    """What both worlds share: the address, the key, and how a request looks in httpx2."""

    def __init__(self, address: GatewayAddress, api_key: SecretStr) -> None:
        self.address = address
        self._api_key = api_key

    def options(self) -> dict[str, Any]:
        """Of a client of httpx2."""
        import ssl

        # Reads SSL_CERT_FILE and SSL_CERT_DIR.
        return {"verify": ssl.create_default_context(), "limits": _LIMITS, "timeout": None}

    def built(self, request: Request | OpenStream) -> dict[str, Any]:
        """The arguments of `build_request`."""
        headers = {"User-Agent": _user_agent(), **request.headers}
        if isinstance(request, OpenStream):
            timeout = httpx2.Timeout(request.silence_s, connect=_CONNECT_S)
            return {
                "method": "GET",
                "url": self.address.url + request.path,
                "params": list(request.query),
                "headers": {**headers, "Accept": "text/event-stream", **self._authorization()},
                "timeout": timeout,
            }
        made: dict[str, Any] = {
            "method": request.method,
            "url": request.path if request.is_elsewhere else self.address.url + request.path,
            "headers": headers if request.is_elsewhere else {**headers, **self._authorization()},
            "timeout": httpx2.Timeout(request.timeout_s, connect=_CONNECT_S),
        }
        if request.query:
            made["params"] = list(request.query)
        if request.document is not None:
            made["json"] = request.document
        if request.content is not None:
            made["content"] = request.content
        if request.form:
            made["data"] = {**request.form.fields, "filename": request.form.file_name}
            made["files"] = {"image": ("image", request.form.image, request.form.content_type)}
        return made

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._api_key.get_secret_value()}"}

    def unreachable(self, request: Request | OpenStream, error: Exception) -> StoreUnavailable:
        """The error for a request that got no complete answer."""
        reason = f"{type(error).__name__}: {error}".rstrip(": ")[:300]
        if isinstance(request, Request) and request.is_elsewhere:
            # The URL holds the secret of a presigned URL, and so may the reason.
            return StoreUnavailable(f"cannot read from the store ({type(error).__name__})")
        hint = "check that it runs and that MASKQ_GATEWAY_URL is right"
        if "CERTIFICATE" in reason.upper():
            hint = "name the file of its CA in SSL_CERT_FILE"
        return StoreUnavailable(f"cannot reach the gateway {self.address.url} ({reason}); {hint}")


class HttpTransport:
    """Blocks. Thread-safe and fork-safe: each process connects by itself."""

    def __init__(self, address: GatewayAddress, api_key: SecretStr) -> None:
        self._requests = requests = _Requests(address, api_key)
        self._client = PerProcess(lambda: httpx2.Client(**requests.options()))

    def send(self, request: Request) -> Answer:
        """The answer, whatever its status. Raises StoreUnavailable."""
        end = time.monotonic() + request.timeout_s
        client = self._client.get()
        try:
            response = client.send(
                client.build_request(**self._requests.built(request)), stream=True
            )
            try:
                parts = []
                for part in response.iter_bytes():
                    if time.monotonic() > end:
                        raise TimeoutError(f"no complete answer within {request.timeout_s:g} s")
                    parts.append(part)
            finally:
                response.close()
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise self._requests.unreachable(request, error) from None
        return _answer(response, b"".join(parts))

    def open(self, request: OpenStream) -> Stream | Answer:
        """The stream, or an Answer that is an error. Raises StoreUnavailable."""
        client = self._client.get()
        try:
            built = client.build_request(**self._requests.built(request))
            response = client.send(built, stream=True)
            if response.status_code == 200:
                return Stream(response)
            try:
                return _answer(response, response.read())
            finally:
                response.close()
        except (httpx2.HTTPError, OSError) as error:
            raise self._requests.unreachable(request, error) from None

    def close(self) -> None:
        """Close this process's connections; the next request connects again."""
        if client := self._client.take():
            client.close()


class Stream:
    """An open event stream."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._parts: Iterator[bytes] = response.iter_bytes()
        self._parser = SseParser()

    def read(self) -> list[Message] | None:
        """The next messages, none at a heartbeat; None if the stream has ended or was silent."""
        with suppress(httpx2.HTTPError, httpx2.StreamError, OSError, StopIteration):
            return self._parser.feed(next(self._parts))
        return None

    def close(self) -> None:
        self._response.close()


class AsyncHttpTransport:
    """Awaited. Event loops, threads and processes may share it: each loop connects by itself."""

    def __init__(self, address: GatewayAddress, api_key: SecretStr) -> None:
        self._requests = requests = _Requests(address, api_key)
        self._client = PerLoop(
            lambda: httpx2.AsyncClient(**requests.options()), httpx2.AsyncClient.aclose
        )

    async def send(self, request: Request) -> Answer:
        """The answer, whatever its status. Raises StoreUnavailable."""
        client = self._client.get()
        try:
            async with asyncio.timeout(request.timeout_s + _CONNECT_S):
                response = await client.send(client.build_request(**self._requests.built(request)))
        except (httpx2.HTTPError, OSError) as error:  # TimeoutError is an OSError
            raise self._requests.unreachable(request, error) from None
        return _answer(response, response.content)

    async def open(self, request: OpenStream) -> AsyncStream | Answer:
        """The stream, or an Answer that is an error. Raises StoreUnavailable."""
        client = self._client.get()
        try:
            built = client.build_request(**self._requests.built(request))
            response = await client.send(built, stream=True)
            if response.status_code == 200:
                return AsyncStream(response)
            try:
                return _answer(response, await response.aread())
            finally:
                await response.aclose()
        except (httpx2.HTTPError, OSError) as error:
            raise self._requests.unreachable(request, error) from None

    async def close(self) -> None:
        """Close the event loops' connections; the next request connects again."""
        await self._client.close()


class AsyncStream:
    """An open event stream, awaited."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._parts: AsyncIterator[bytes] = response.aiter_bytes()
        self._parser = SseParser()

    async def read(self) -> list[Message] | None:
        """The next messages, none at a heartbeat; None if the stream has ended or was silent."""
        with suppress(httpx2.HTTPError, httpx2.StreamError, OSError, StopAsyncIteration):
            return self._parser.feed(await anext(self._parts))
        return None

    async def close(self) -> None:
        await self._response.aclose()


def _answer(response: httpx2.Response, body: bytes) -> Answer:
    return Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, body)


@cache
def _user_agent() -> str:
    # Once a process: reading the metadata takes longer than a request.
    with suppress(PackageNotFoundError):
        return f"maskq/{version('maskq')}"
    return "maskq"
