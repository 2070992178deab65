"""The API's routes on an application, with what they share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maskq import AsyncClient, s3
from maskq.contract.locations import S3Uri
from maskq_gateway.api import batches, deployment
from maskq_gateway.api.auth import Authorizer
from maskq_gateway.api.documents import add_schemas
from maskq_gateway.api.events import stream
from maskq_gateway.api.events.feed import EventFeed
from maskq_gateway.api.events.groups import GroupReaders
from maskq_gateway.api.jobs import Jobs
from maskq_gateway.api.outputs import Outputs
from maskq_gateway.api.schemas import (
    Confirmation,
    NewBatch,
    NewBatchOfUploads,
    NewJob,
    NewJobOfUpload,
    NewUpload,
    ProblemDocument,
)
from maskq_gateway.api.store import Store
from maskq_gateway.api.uploads import Uploads
from maskq_gateway.api.views import routes as views
from maskq_gateway.settings import GatewaySettings

_REQUEST_HEADERS = [
    "Authorization", "Content-Type", "Idempotency-Key", "Prefer", "Last-Event-ID", "traceparent",
    "tracestate",
]  # fmt: skip
_ANSWER_HEADERS = [
    "Location", "Retry-After", "ETag", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset",
]  # fmt: skip
_OF_BODIES = (NewJob, NewJobOfUpload, NewBatch, NewBatchOfUploads, NewUpload, Confirmation)
_DESCRIPTION = """\
Segment images without a library: an API key and this URL are enough. `maskq keys create` makes a key.
Errors are RFC 9457 problems whose `code` is stable. An accepted job is never lost.
"""


def add_api(app: FastAPI, settings: GatewaySettings, client: AsyncClient) -> None:
    """Add the API's routes to `app`; `client` stays its caller's to close."""
    home = S3Uri(settings.s3_bucket, settings.output_prefix)
    authorizer = Authorizer(client)
    store = Store(settings)
    uploads = Uploads(client, authorizer, store, settings.gateway_max_presigned_bytes)
    jobs = Jobs(client, authorizer, uploads, settings.gateway_max_upload_bytes)
    outputs = Outputs(
        authorizer,
        store,
        delivery=settings.gateway_outputs,
        layout=client.session.layout,
    )
    feed = EventFeed(client)
    probed = s3.Connection(
        partial(
            s3.connect,
            settings.s3_endpoint_url,
            addressing=settings.s3_addressing,
            connections=2,
            read_timeout_s=5.0,
            attempts=1,
        )
    )
    for router in (
        jobs.router(),
        outputs.router(),
        uploads.router(),
        batches.router(client, authorizer, uploads, settings.gateway_max_upload_bytes),
        stream.router(feed, GroupReaders(client, feed), authorizer),
        deployment.router(client, authorizer, settings),
        views.router(client, authorizer),
        deployment.health(client, home, probed),
    ):
        app.include_router(router)
    app.add_middleware(_HeadersOfState)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_ANSWER_HEADERS,
        )
    _describe(app)
    app.router.lifespan_context = _closing(app.router.lifespan_context, feed, store, probed)


class _HeadersOfState:
    """Adds `request.state.headers` to the answer, also to one that an exception makes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = scope.get("state", {}).get("headers", {})
                pairs = [(k.lower().encode(), v.encode()) for k, v in more.items()]
                message = {**message, "headers": [*message.get("headers", ()), *pairs]}
            await send(message)

        await self._app(scope, receive, sent if scope["type"] == "http" else send)


def _describe(app: FastAPI) -> None:
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            document["info"]["description"] = _DESCRIPTION
            document["info"]["version"] = version("maskq")
            add_schemas(document, *_OF_BODIES, ProblemDocument)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _closing(
    lifespan: Callable[[Any], AbstractAsyncContextManager[Any]],
    feed: EventFeed,
    store: Store,
    probed: s3.Connection,
) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    @asynccontextmanager
    async def closing(app: Any) -> Any:
        async with lifespan(app) as state:
            yield state
        await feed.close()
        store.close()
        probed.close()

    return closing
