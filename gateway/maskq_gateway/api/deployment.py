"""What concerns the deployment: models, limits, webhook deliveries, health."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from maskq import AsyncClient, s3
from maskq.contract import Output
from maskq.contract.api_keys import Scope
from maskq.contract.image_formats import IMAGE_FORMATS
from maskq.contract.locations import S3Uri
from maskq.contract.webhooks import Delivery, DeliveryState
from maskq.ledger.calls import Call, queueing
from maskq.ledger.calls.queueing import Demand
from maskq_gateway.api.auth import Authorizer, Caller
from maskq_gateway.api.documents import answers, problem
from maskq_gateway.api.schemas import (
    LARGEST_BATCH,
    LONGEST_WAIT_S,
    Health,
    Limits,
    ModelDemand,
    Models,
    ScaleState,
)
from maskq_gateway.settings import GatewaySettings

_PING: Call[bool] = Call(None, ("PING",), bool)


def router(client: AsyncClient, authorizer: Authorizer, settings: GatewaySettings) -> APIRouter:
    """The routes that callers with a key have."""
    router = APIRouter(prefix="/v1")
    reads = Depends(authorizer.needs(Scope.READ))
    administers = Depends(authorizer.needs(Scope.ADMIN))

    @router.get(
        "/models",
        response_model=Models,
        responses=answers(),
        tags=["models"],
        summary="List models",
    )
    async def models(caller: Caller = reads) -> Response:
        """Every model that jobs can ask for, its live workers and queued jobs."""
        found, default = await client.models(), await client.default_model()
        answer = Models(models=list(found), default=default)
        return JSONResponse(answer.model_dump(mode="json"))

    @router.get(
        "/scale",
        response_model=ScaleState,
        responses=answers(),
        tags=["models"],
        summary="Show the demand of each model",
    )
    async def scale(
        caller: Caller = administers,
        target_wait_s: Annotated[
            float, Query(gt=0, le=86_400, description="How long jobs may wait for a worker.")
        ] = 60.0,
        model: Annotated[str, Query(description="Only this one.", max_length=200)] = "",
    ) -> Response:
        """What autoscalers need: the work there is, and how many workers would do it in time."""
        found = await client.session.run(queueing.demand())
        each = [_demand_of(one, target_wait_s) for one in found if model in ("", one.model)]
        if model and not each:
            each = [_first_worker(model)]
        answer = ScaleState(target_wait_s=target_wait_s, models=each)
        return JSONResponse(answer.model_dump(mode="json"))

    @router.get("/limits", response_model=Limits, responses=answers(), summary="Show limits")
    async def limits(caller: Caller = reads) -> Response:
        """What this deployment accepts."""
        answer = Limits(
            max_upload_bytes=settings.gateway_max_upload_bytes,
            max_presigned_bytes=settings.gateway_max_presigned_bytes,
            max_batch_jobs=LARGEST_BATCH,
            max_wait_s=LONGEST_WAIT_S,
            queue_ttl_s=settings.queue_ttl_s,
            run_timeout_s=settings.run_timeout_s,
            retention_s=settings.retention_s,
            outputs=list(Output),
            image_types={one.media_type: list(one.suffixes) for one in IMAGE_FORMATS},
        )
        return JSONResponse(answer.model_dump(mode="json"))

    @router.get(
        "/webhooks/deliveries",
        response_model=list[Delivery],
        responses=answers(),
        tags=["webhooks"],
        summary="List webhook deliveries",
    )
    async def deliveries(
        caller: Caller = administers,
        subject: Annotated[str, Query(description="Of this job or batch.", max_length=200)] = "",
        state: DeliveryState | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Response:
        """With their attempts, newest first."""
        found = await client.deliveries(subject, state=state, limit=limit)
        return JSONResponse([one.model_dump(mode="json", exclude_none=True) for one in found])

    @router.post(
        "/webhooks/deliveries/{delivery_id}/redeliver",
        status_code=HTTPStatus.ACCEPTED,
        response_model=Health,
        responses=answers(404),
        tags=["webhooks"],
        summary="Deliver a webhook again",
    )
    async def redeliver(delivery_id: str, caller: Caller = administers) -> Response:
        """Post it once more, whatever became of it."""
        await client.redeliver(delivery_id)
        return JSONResponse({"status": "accepted"}, HTTPStatus.ACCEPTED)

    return router


def _first_worker(model: str) -> ModelDemand:
    """Of a model that nobody has served: jobs can ask for it once its first worker lives."""
    return ModelDemand(
        model=model,
        queued=0,
        startable=0,
        running=0,
        workers=0,
        jobs_per_s=None,
        offered_load=None,
        demand_s=None,
        desired_workers=1,
    )


def _demand_of(found: Demand, target_wait_s: float) -> ModelDemand:
    return ModelDemand(
        model=found.model,
        queued=found.queued,
        startable=found.startable,
        running=found.running,
        workers=found.workers,
        jobs_per_s=round(found.rate.mean, 3) if found.rate else None,
        offered_load=None if found.offered_load is None else round(found.offered_load, 3),
        demand_s=None if found.seconds is None else round(found.seconds, 1),
        desired_workers=found.workers_for(target_wait_s),
    )


def health(client: AsyncClient, home: S3Uri, store: s3.Connection) -> APIRouter:
    """The routes of orchestrators, which need no key."""
    router = APIRouter(tags=["health"])
    unready: dict[int | str, dict[str, Any]] = {503: problem(503)}

    @router.get("/healthz", response_model=Health, summary="The process lives")
    async def healthz() -> dict[str, str]:
        """Asks neither Redis nor S3: a restart would not bring them back."""
        return {"status": "ok"}

    @router.get("/readyz", response_model=Health, responses=unready, summary="Redis and S3 answer")
    async def readyz() -> dict[str, str]:
        """503 while requests would fail."""
        await client.session.run(_PING)
        await run_in_threadpool(check_store, store, home)
        return {"status": "ok"}

    return router


def check_store(store: s3.Connection, home: S3Uri) -> None:
    """Raises StoreUnavailable or StoreRefused unless the store lists the deployment's own prefix.

    A publisher may list below the prefix, but may not ask for the bucket itself (HeadBucket).
    """

    def work(client: Any) -> None:
        with s3.typed_errors(home):
            client.list_objects_v2(Bucket=home.bucket, Prefix=(home / "").key, MaxKeys=1)

    try:
        store.run(work)
    except s3.StoreError as error:
        raise s3.for_callers(error) from error
