"""/v1/batches: many images under one id."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from maskq import AsyncClient
from maskq.client.batch import batch_when_ended
from maskq.contract.api_keys import Scope
from maskq.contract.validation import sentence
from maskq.errors import InvalidRequest, JobNotFound
from maskq.ledger.calls import BatchProgress
from maskq_gateway.api.auth import Authorizer, Caller, of_tenant
from maskq_gateway.api.bodies import json_of
from maskq_gateway.api.documents import OF_BODIES, answers, described
from maskq_gateway.api.jobs import options
from maskq_gateway.api.schemas import LONGEST_WAIT_S, BatchState, NewBatch, Wait

_PAGE = 1000


def router(client: AsyncClient, authorizer: Authorizer) -> APIRouter:
    """The routes of batches."""
    router = APIRouter(prefix="/v1/batches", tags=["batches"])
    submits = Depends(authorizer.needs(Scope.SUBMIT))
    reads = Depends(authorizer.needs(Scope.READ))

    @router.post(
        "",
        status_code=HTTPStatus.ACCEPTED,
        response_model=BatchState,
        responses=answers(*OF_BODIES),
        openapi_extra=described(NewBatch),
        summary="Submit many images",
    )
    async def submit(request: Request, caller: Caller = submits) -> Response:
        """All are accepted or none is. Each is a job; the batch has an event of its own."""
        try:
            wanted = NewBatch.model_validate(await json_of(request))
        except ValidationError as error:
            raise InvalidRequest(sentence(error)) from None
        fields = of_tenant(wanted.options.model_dump(exclude_unset=True), caller)
        for uri in wanted.image_uris:
            options(fields, uri)
        batch = await client.submit_many(
            wanted.image_uris, batch_webhook=wanted.webhook, **options(fields)
        )
        job_ids = [job.id for job in batch.jobs]
        state = BatchState(id=batch.id, total=len(job_ids), ended=0, counts={}, job_ids=job_ids)
        headers = {"Location": str(request.url_for("look_at_batch", batch_id=batch.id).path)}
        return JSONResponse(state.model_dump(mode="json"), HTTPStatus.ACCEPTED, headers)

    @router.get(
        "/{batch_id}", response_model=BatchState, responses=answers(404), summary="Look at a batch"
    )
    async def look_at_batch(
        batch_id: str,
        caller: Caller = reads,
        wait: Annotated[Wait, Query()] = 0.0,
    ) -> Response:
        """How many of its jobs have ended, and how; with `wait`, as soon as all have."""
        progress = await _progress(batch_id, caller)
        if wait and not _is_over(progress):
            progress = await client.session.drive(
                batch_when_ended(client.session, batch_id, min(wait, LONGEST_WAIT_S))
            )
        return JSONResponse(_state(batch_id, progress))

    @router.post(
        "/{batch_id}/cancel",
        response_model=BatchState,
        responses=answers(404),
        summary="Cancel a batch",
    )
    async def cancel(batch_id: str, caller: Caller = submits) -> Response:
        """Take back every job of it that has not ended."""
        await _progress(batch_id, caller)
        cursor = ""
        while True:
            page = await client.list(batch_id=batch_id, limit=_PAGE, cursor=cursor)
            running = [record.id for record in page.records if not record.ended]
            await client.batch(batch_id, running).cancel()
            cursor = page.cursor
            if not cursor:
                break
        return JSONResponse(_state(batch_id, await _progress(batch_id, caller)))

    async def _progress(batch_id: str, caller: Caller) -> BatchProgress:
        progress: BatchProgress = await client.batch(batch_id, []).progress()
        if not caller.sees(progress.tenant):
            raise JobNotFound(batch_id, kind="batch")
        return progress

    return router


def _is_over(progress: BatchProgress) -> bool:
    return sum(progress.counts.values()) >= progress.total


def _state(batch_id: str, progress: BatchProgress) -> dict[str, Any]:
    state = BatchState(
        id=batch_id,
        total=progress.total,
        ended=sum(progress.counts.values()),
        counts=progress.counts,
    )
    return state.model_dump(mode="json", exclude={"job_ids"})
