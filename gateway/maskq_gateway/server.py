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

from maskq import Client
from maskq.errors import InvalidRequest
from maskq.inert import log_to_stderr, print_error
from maskq.ledger.connections.requirements import Role, refuse_unfit
from maskq.process import starting
from maskq.process.health import HealthFile, Heartbeat
from maskq.process.stop_times import GATEWAY_DRAIN_S
from maskq.telemetry.trace_export import exporting
from maskq_gateway.asgi import application
from maskq_gateway.http_limits import MESSAGE_BYTES, LimitedProtocol
from maskq_gateway.metrics import metrics_port
from maskq_gateway.settings import GatewaySettings


class _Server(uvicorn.Server):
    """Prints its address once it listens; uvicorn would only log it."""

    def __init__(self, config: uvicorn.Config, heartbeat: Heartbeat) -> None:
        super().__init__(config)
        self._heartbeat = heartbeat

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second by the event loop that answers requests."""
        if counter % 10 == 0:
            self._heartbeat.still_alive()
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for bound in sockets or ():
            host, port = bound.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            scheme = "https" if self.config.is_ssl else "http"
            print_error(f"listening on {scheme}://{shown}:{port}")
        if self.started:
            self._heartbeat.alive()


def serve(settings: GatewaySettings, rules: Path | None, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises InvalidRequest if a setting or the address is unusable."""
    log_to_stderr(settings.log_level, settings.log_format)
    with starting():  # a Redis or S3 URL that cannot be used
        connected = Client(settings)
    with connected as client:
        refuse_unfit(client.session.ledger, Role.GATEWAY)
        app = application(settings, client, rules)
        with starting():  # a certificate that cannot be used
            config = _config(app, settings)
        with (
            listening(host, port) as bound,
            metrics_port(settings, client),
            exporting("maskq-gateway"),
            Heartbeat(HealthFile(settings.health_file)) as heartbeat,
        ):
            # After its stop uvicorn restores this handler and raises the signal again.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            _Server(config, heartbeat).run(sockets=[bound])


def _config(app: FastAPI, settings: GatewaySettings) -> uvicorn.Config:
    """How the settings say that the application is served. Raises InvalidRequest."""
    settings.refuse_half_of_tls()
    config = config_of(
        app,
        settings.gateway_max_upload_bytes,
        root_path=settings.gateway_root_path,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=sorted(settings.trusted_proxies),
        ssl_certfile=settings.gateway_tls_certificate,
        ssl_keyfile=settings.gateway_tls_key,
    )
    try:
        config.load()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise InvalidRequest(
            f"the certificate {settings.gateway_tls_certificate} with the key"
            f" {settings.gateway_tls_key} cannot be used: {error}"
        ) from None
    return config


def config_of(app: Any, max_upload_bytes: int = 0, **more: Any) -> uvicorn.Config:
    """uvicorn's configuration.

    Args:
        max_upload_bytes: of an image within a request.
        more: further arguments of uvicorn.Config.
    """
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
        timeout_graceful_shutdown=GATEWAY_DRAIN_S,
        **more,
    )


def listening(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InvalidRequest if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host, port), family=family)
        # asyncio sets it for sockets of the protocol TCP only, and this one has the protocol 0. Without
        # it an answer's body waits up to 40 ms for the acknowledgement of its headers.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    except OSError as error:
        raise InvalidRequest(f"{host}:{port} cannot be listened at: {error.strerror}") from None
