"""`maskq gateway`: the application in uvicorn, as a process of its own."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn

from maskq import Client
from maskq.errors import InvalidRequest
from maskq.inert import log_to_stderr, print_error
from maskq.ledger.requirements import Role, refuse_unfit
from maskq.process import starting
from maskq_gateway.app import create_app
from maskq_gateway.http_limits import LimitedProtocol
from maskq_gateway.settings import GatewaySettings

_LAST_ANSWERS_S = 20  # for requests in hand when it is told to stop


class _Server(uvicorn.Server):
    """Says where it listens once it does; uvicorn's own line goes to a log."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for bound in sockets or ():
            host, port = bound.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print_error(f"listening on http://{shown}:{port}")


def serve(settings: GatewaySettings, rules: Path | None, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises InvalidRequest for what cannot be served, or not there."""
    log_to_stderr(settings.log_level)
    with starting():  # a Redis or S3 URL that cannot be used
        connected = Client(settings)
    with connected as client:
        refuse_unfit(client.session.ledger, Role.GATEWAY, settings.key_prefix)
        app = create_app(settings, client, settings.rules(rules))
        with _bound(host, port) as bound:
            # uvicorn raises again the signal that ended it, for whom it was before.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            _Server(config_of(app)).run(sockets=[bound])


def config_of(app: Any) -> uvicorn.Config:
    """How an application is served."""
    return uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
    )


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InvalidRequest(f"{host}:{port} cannot be listened at: {error.strerror}") from None
