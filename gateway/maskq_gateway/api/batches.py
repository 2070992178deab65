"""/v1/batches: many images under one id."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError

from maskq import AsyncClient
from maskq.client.batch import batch_when_ended
from maskq.client.bulk import SubmitOptions
from maskq.client.image_source import NamedImage
from maskq.contract.api_keys import Scope
from maskq.contract.ids import new_id
from maskq.contract.options import Options
from maskq.errors import InvalidRequest, JobNotFound, MaskqError
from maskq.ledger.calls import BatchMembership, BatchProgress
from maskq.validation import sentence
from maskq_gateway import problems
from maskq_gateway.api.auth import Authorizer, Caller, named_batch, of_tenant, scoped
from maskq_gateway.api.bodies import form_of, image_of, json_of, options_of
from maskq_gateway.api.documents import OF_BODIES, answers, described
from maskq_gateway.api.jobs import options
from maskq_gateway.api.schemas import LONGEST_WAIT_S, BatchPart, BatchState, NewBatch, Wait

_PAGE = 1000
ModelT = TypeVar("ModelT", bound=BaseModel)


def router(client: AsyncClient, authorizer: Authorizer, max_upload_bytes: int) -> APIRouter:
    """The routes of batches."""
    router = APIRouter(prefix="/v1/batches", tags=["batches"])
    submits = Depends(authorizer.needs(Scope.SUBMIT))
    reads = Depends(authorizer.needs(Scope.READ))

    @router.post(
        "",
        status_code=HTTPStatus.ACCEPTED,
        response_model=BatchState,
        responses=answers(*OF_BODIES),
        openapi_extra=described(NewBatch, multipart=True),
        summary="Submit many images",
    )
    async def submit(request: Request, caller: Caller = submits) -> Response:
        """All are accepted or none is. Each is a job; the batch has an event of its own.

        With `batch_id` the images join that batch, and `outcomes` says what became of each.
        """
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            async with form_of(request, max_upload_bytes) as form:
                image, fields = await image_of(form), options_of(form)
            part = _validated(BatchPart, _part_of(fields))
            return await _join(part, [image], options(of_tenant(fields, caller)), caller)
        wanted = _validated(NewBatch, await json_of(request))
        fields = of_tenant(wanted.options.model_dump(exclude_unset=True), caller)
        for uri in wanted.image_uris:
            options(fields, uri)
        if wanted.batch_id is not None:
            return await _join(wanted, wanted.image_uris, options(fields), caller)
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
        seen: Annotated[
            int | None,
            Query(
                ge=0, description="Also the jobs that ended after so many, waiting for the first."
            ),
        ] = None,
    ) -> Response:
        """How many of its jobs have ended, and how; with `wait`, as soon as all have."""
        given, batch_id = batch_id, named_batch(batch_id, caller)
        progress = await _progress(batch_id, caller)
        if seen is not None:
            records = await client.session.drive(
                client.session.deployment.ended_in_batch(batch_id, seen, wait)
            )
            ended = {i: record and record.public() for i, record in (records or {}).items()}
            return JSONResponse(_state(given, progress) | {"ended_jobs": ended})
        if wait and not _is_over(progress):
            progress = await client.session.drive(
                batch_when_ended(client.session, batch_id, min(wait, LONGEST_WAIT_S))
            )
        return JSONResponse(_state(given, progress))

    @router.post(
        "/{batch_id}/cancel",
        response_model=BatchState,
        responses=answers(404),
        summary="Cancel a batch",
    )
    async def cancel(batch_id: str, caller: Caller = submits) -> Response:
        """Take back every job of it that has not ended."""
        given, batch_id = batch_id, named_batch(batch_id, caller)
        await _progress(batch_id, caller)
        cursor = ""
        while True:
            page = await client.list(batch_id=batch_id, limit=_PAGE, cursor=cursor)
            running = [record.id for record in page.records if not record.ended]
            await client.batch(batch_id, running).cancel()
            cursor = page.cursor
            if not cursor:
                break
        return JSONResponse(_state(given, await _progress(batch_id, caller)))

    async def _join(
        part: BatchPart, images: Sequence[str | NamedImage], wanted: dict[str, Any], caller: Caller
    ) -> Response:
        if any(
            given and len(given) != len(images) for given in (part.idempotency_keys, part.retry_of)
        ):
            raise InvalidRequest("idempotency_keys, retry_of: give one for each image, or none")
        batch_id = named_batch(part.batch_id or new_id(), caller)
        found = await client.session.drive(client.session.deployment.batch_progress(batch_id))
        if found and not caller.sees(found.tenant):
            raise JobNotFound(batch_id, kind="batch")
        retried = dict(zip(images, part.retry_of, strict=False))
        bulk = client.session.deployment.bulk(
            lambda job_id: job_id,
            SubmitOptions(
                batch=BatchMembership(batch_id=batch_id, total=part.total, webhook=part.webhook),
                keys=[scoped(key, caller) for key in part.idempotency_keys],
                retry_of=lambda image: retried.get(cast("str", image), ""),
                durable=part.durable,
                queue_full_timeout=0.0,
                outage_s=0.0,
            ),
            cast("Options", wanted),
        )
        outcomes: dict[int, dict[str, Any]] = {}
        for step in bulk.steps(images):
            for number, (_, job_id, error) in await client.session.drive(step):
                outcomes[number] = {"error": _told(error)} if error else {"job_id": job_id}
        state = _state(part.batch_id or batch_id, await _progress(batch_id, caller, or_none=True))
        state["outcomes"] = [outcomes[number] for number in range(len(images))]
        return JSONResponse(state, HTTPStatus.ACCEPTED)

    async def _progress(batch_id: str, caller: Caller, *, or_none: bool = False) -> BatchProgress:
        """or_none: an unknown batch has no jobs, because none was accepted."""
        deployment = client.session.deployment
        progress = await client.session.drive(deployment.batch_progress(batch_id))
        if progress is None and or_none:
            return BatchProgress(0, {}, ())
        if progress is None:
            raise JobNotFound(batch_id, kind="batch")
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
    return state.model_dump(mode="json", exclude={"job_ids", "outcomes", "ended_jobs"})


def _validated(model: type[ModelT], document: dict[str, Any]) -> ModelT:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise InvalidRequest(sentence(error)) from None


def _part_of(fields: dict[str, Any]) -> dict[str, Any]:
    """The JSON object in the field `batch` of a form. Raises InvalidRequest."""
    try:
        part = json.loads(fields.pop("batch", ""))
    except ValueError:
        part = None
    if not isinstance(part, dict):
        raise InvalidRequest("batch: must be a JSON object with `batch_id`")
    return part


def _told(error: MaskqError) -> dict[str, str]:
    return {"code": error.code.value, "detail": str(problems.of(error))}
