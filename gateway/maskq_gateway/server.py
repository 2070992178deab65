"""`maskq gateway`: the application in uvicorn, as a process of its own."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from maskq import AsyncClient, Client
from maskq.errors import InvalidRequest
from maskq.ledger.requirements import Role, refuse_unfit
from maskq.process import starting
from maskq_gateway import problems
from maskq_gateway.api import add_api
from maskq_gateway.app import add_triggers
from maskq_gateway.beat import Beat
from maskq_gateway.page import add_page
from maskq_gateway.settings import GatewaySettings

_LAST_ANSWERS_S = 20  # for requests in hand when it is told to stop


class _Server(uvicorn.Server):
    """Says where it listens once it does; uvicorn's own line goes to a log."""

    def __init__(self, config: uvicorn.Config, beat: Beat) -> None:
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
            print(f"listening on http://{shown}:{port}", file=sys.stderr, flush=True)
        if self.started:
            self._beat.alive()


def serve(settings: GatewaySettings, rules: Path | None, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises InvalidRequest for what cannot be served, or not there."""
    logging.basicConfig(
        level=settings.log_level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    with starting():  # a Redis or S3 URL that cannot be used
        connected = Client(settings)
    with connected as client:
        refuse_unfit(client.session.ledger, Role.GATEWAY, settings.key_prefix)
        app = application(settings, client, rules)
        with _bound(host, port) as bound, Beat(settings.health_file) as beat:
            config = uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="on",
                server_header=False,
                timeout_graceful_shutdown=_LAST_ANSWERS_S,
            )
            # uvicorn raises again the signal that ended it, for whom it was before.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            _Server(config, beat).run(sockets=[bound])


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


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InvalidRequest(f"{host}:{port} cannot be listened at: {error.strerror}") from None
