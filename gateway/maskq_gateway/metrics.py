"""The deployment's metrics: `GET /metrics` for API keys of scope admin, or a port of its own."""

from __future__ import annotations

from contextlib import AbstractContextManager

from fastapi import Depends, FastAPI, Response

from maskq import AsyncClient, Client
from maskq.contract.api_keys import Scope
from maskq.ledger.calls.metrics import deployment_metrics
from maskq.telemetry.deployment import deployment_text
from maskq.telemetry.series import CONTENT_TYPE
from maskq.telemetry.server import serving_metrics
from maskq_gateway.api.auth import Authorizer, Caller
from maskq_gateway.settings import GatewaySettings


def add_metrics(app: FastAPI, client: AsyncClient) -> None:
    """Add the route."""
    administers = Depends(Authorizer(client).needs(Scope.ADMIN))

    @app.get("/metrics", include_in_schema=False)
    async def metrics(caller: Caller = administers) -> Response:
        """In Prometheus' text format."""
        found = await client.session.run(deployment_metrics())
        return Response(deployment_text(found), media_type=CONTENT_TYPE)


def metrics_port(settings: GatewaySettings, client: Client) -> AbstractContextManager[None]:
    """Serve the same without a key at MASKQ_METRICS_PORT, if it is set, while the block runs."""
    return serving_metrics(
        settings, lambda: deployment_text(client.session.run(deployment_metrics()))
    )
