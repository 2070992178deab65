"""The gateway as an ASGI application, for any ASGI server or for mounting into another application.

    app.mount("/masks", maskq_gateway.asgi.create_app())

`maskq gateway` serves the same application. Its limits on connections, headers and slow peers
(http_limits.py) belong to that server: others have their own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from maskq import AsyncClient, Client
from maskq.contract.tracing import TRACEPARENT, TRACESTATE, TraceContext
from maskq.telemetry import tracing
from maskq_gateway import problems
from maskq_gateway.api import add_api
from maskq_gateway.app import add_triggers
from maskq_gateway.metrics import add_metrics
from maskq_gateway.page import add_page
from maskq_gateway.settings import GatewaySettings

_SMALLEST_COMPRESSED = 1024  # bytes


def create_app(settings: GatewaySettings | None = None, *, rules: Path | None = None) -> FastAPI:
    """The HTTP API, the page and, with rules, the route for notifications.

    An application that mounts this one closes its connections by entering its lifespan:
    `async with app.router.lifespan_context(app)`.

    Args:
        settings: default: the MASKQ_ variables.
        rules: a TOML file; default: MASKQ_TRIGGER_RULES.

    Raises:
        InvalidRequest: a setting or a rule is wrong.
    """
    settings = settings or GatewaySettings.load()
    client = Client(settings)
    app = application(settings, client, rules)
    app.router.lifespan_context = _closing(app.router.lifespan_context, client)
    return app


def application(settings: GatewaySettings, client: Client, rules: Path | None = None) -> FastAPI:
    """As `create_app`. The notifications use `client`, which stays its caller's to close."""
    app = FastAPI(title="maskq", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    problems.handle(app)
    asynchronous = AsyncClient(settings)
    add_api(app, settings, asynchronous)
    add_metrics(app, asynchronous)
    add_page(app)
    if rules or settings.trigger_rules:
        add_triggers(app, settings, client, settings.rules(rules))
    app.add_middleware(CompressText)
    app.add_middleware(TakeTraceContext)
    return app


class CompressText:
    """Compresses answers, except outputs, which are compressed images, and streams of events."""

    def __init__(self, app: ASGIApp) -> None:
        self._plain = app
        self._compressing = GZipMiddleware(app, minimum_size=_SMALLEST_COMPRESSED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_text = "/outputs/" not in path and not path.endswith("/events")
        await (self._compressing if is_text else self._plain)(scope, receive, send)


class TakeTraceContext:
    """Submissions of a request continue the trace that its headers name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope)
        state = ",".join(given.getlist(TRACESTATE))  # a list may be spread over several headers
        with tracing.answering(TraceContext.parse(given.get(TRACEPARENT), state)):
            await self._app(scope, receive, send)


def _closing(
    lifespan: Callable[[Any], AbstractAsyncContextManager[Any]], client: Client
) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    @asynccontextmanager
    async def closing(app: Any) -> Any:
        async with lifespan(app) as state:
            yield state
        client.close()

    return closing
