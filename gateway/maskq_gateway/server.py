"""`maskq gateway`: the application in uvicorn, as a process of its own."""

from __future__ import annotations

import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from maskq import AsyncClient, Client
from maskq.errors import InvalidRequest
from maskq.inert import log_to_stderr, print_error
from maskq.ledger.connections.requirements import Role, refuse_unfit
from maskq.process import starting
from maskq_gateway import problems
from maskq_gateway.api import add_api
from maskq_gateway.app import add_triggers
from maskq_gateway.heartbeat import Heartbeat
from maskq_gateway.http_limits import MESSAGE_BYTES, LimitedProtocol
from maskq_gateway.page import add_page
from maskq_gateway.settings import GatewaySettings

_LAST_ANSWERS_S = 20  # for requests in hand when it is told to stop


class _Server(uvicorn.Server):
    """Says where it listens once it does; uvicorn's own line goes to a log."""

    def __init__(self, config: uvicorn.Config, beat: Heartbeat) -> None:
        super().__init__(config)
        self._beat = beat

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second by the event loop that answers requests."""
        if counter % 10 == 0:
            self._beat.still_alive()
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for bound in sockets or ():
            host, port = bound.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print_error(f"listening on http://{shown}:{port}")
        if self.started:
            self._beat.alive()


def serve(settings: GatewaySettings, rules: Path | None, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises InvalidRequest for what cannot be served, or not there."""
    log_to_stderr(settings.log_level)
    with starting():  # a Redis or S3 URL that cannot be used
        connected = Client(settings)
    with connected as client:
        refuse_unfit(client.session.ledger, Role.GATEWAY)
        app = application(settings, client, rules)
        with _bound(host, port) as bound, Heartbeat(settings.health_file) as beat:
            # uvicorn raises again the signal that ended it, for whom it was before.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            _Server(config_of(app, settings.gateway_max_upload_bytes), beat).run(sockets=[bound])


def application(settings: GatewaySettings, client: Client, rules: Path | None = None) -> FastAPI:
    """The API, the page, and the route for notifications where there are rules for them.

    client: of the notifications; the API connects by itself. Raises InvalidRequest.
    """
    app = FastAPI(title="maskq", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    problems.handle(app)
    add_api(app, settings, AsyncClient(settings))
    add_page(app)
    if rules or settings.trigger_rules:
        add_triggers(app, settings, client, settings.rules(rules))
    return app


def config_of(app: Any, max_upload_bytes: int = 0) -> uvicorn.Config:
    """How an application is served. max_upload_bytes: of an image within a request."""
    message_bytes = max_upload_bytes + MESSAGE_BYTES
    return uvicorn.Config(
        app,
        http=partial(LimitedProtocol, message_bytes=message_bytes),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
    )


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InvalidRequest(f"{host}:{port} cannot be listened at: {error.strerror}") from None
