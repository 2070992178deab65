"""Routes that show the workers and the deployment at a glance."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse

from maskq import AsyncClient
from maskq.contract.api_keys import Scope
from maskq.contract.deployment.overview import Overview
from maskq.contract.deployment.workers import Workers
from maskq.ledger.calls.deployment.workers import live_workers
from maskq_gateway.api.auth import Authorizer, Caller
from maskq_gateway.api.documents import answers


def router(client: AsyncClient, authorizer: Authorizer) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["models"])
    administers = Depends(authorizer.needs(Scope.ADMIN))

    @router.get(
        "/workers", response_model=Workers, responses=answers(), summary="List live workers"
    )
    async def workers(caller: Caller = administers) -> Response:
        """Which worker serves what since when, and how busy it is."""
        found = await client.session.run(live_workers())
        return JSONResponse(found.model_dump(mode="json"))

    @router.get(
        "/overview",
        response_model=Overview,
        responses=answers(),
        summary="Show the deployment at a glance",
    )
    async def overview(caller: Caller = administers) -> Response:
        """Queues, totals, stores and limits; stores and limits are those of the gateway's settings."""
        found = await client.overview()
        return JSONResponse(found.model_dump(mode="json"))

    return router
