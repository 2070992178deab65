"""/v1/batches: many images under one id."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar, cast

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
from maskq.errors import InvalidRequest, JobNotFound, MaskqError, StoreUnavailable, UnknownModel
from maskq.ledger.calls import BatchMembership, BatchProgress
from maskq.validation import sentence
from maskq_gateway import problems
from maskq_gateway.api.auth import Authorizer, Caller, named_batch, of_tenant, scoped
from maskq_gateway.api.bodies import form_of, image_of, json_of, options_of
from maskq_gateway.api.documents import OF_BODIES, answers, described
from maskq_gateway.api.jobs import options
from maskq_gateway.api.schemas import (
    LONGEST_WAIT_S,
    BatchPart,
    BatchState,
    NewBatch,
    NewBatchOfUploads,
    Wait,
)
from maskq_gateway.api.uploads import UploadId, Uploads
from maskq_gateway.problems import Problem
from maskq_gateway.waiting import outage_tolerated, while_connected

_OF_JOINED: Final = {"total", "idempotency_keys", "retry_of"}  # fields that need a batch_id
_PAGE = 1000
ModelT = TypeVar("ModelT", bound=BaseModel)


def router(
    client: AsyncClient, authorizer: Authorizer, uploads: Uploads, max_upload_bytes: int
) -> APIRouter:
    """The routes of batches."""
    router = APIRouter(prefix="/v1/batches", tags=["batches"])
    submits = Depends(authorizer.needs(Scope.SUBMIT))
    reads = Depends(authorizer.needs(Scope.READ))

    @router.post(
        "",
        status_code=HTTPStatus.ACCEPTED,
        response_model=BatchState,
        responses=answers(*OF_BODIES),
        openapi_extra=described(NewBatch, NewBatchOfUploads, multipart=True),
        summary="Submit many images",
    )
    async def submit(request: Request, caller: Caller = submits) -> Response:
        """All are accepted or none is. Each is a job; the batch has an event of its own.

        With `batch_id` the images join that batch, and `outcomes` says what became of each. So it does
        for `upload_ids`.
        """
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            async with form_of(request, max_upload_bytes) as form:
                image, fields = await image_of(form), options_of(form)
            part = _validated(BatchPart, _part_of(fields))
            return await _join(part, [image], options(of_tenant(fields, caller)), caller)
        document = await json_of(request, or_form=True)
        if "upload_ids" in document:
            return await _join_uploads(_validated(NewBatchOfUploads, document), caller)
        wanted = _validated(NewBatch, document)
        fields = of_tenant(wanted.options.model_dump(exclude_unset=True), caller)
        for uri in wanted.image_uris:
            options(fields, uri)
        if wanted.batch_id is not None:
            return await _join(wanted, wanted.image_uris, options(fields), caller)
        if given := wanted.model_fields_set & _OF_JOINED:
            raise InvalidRequest(
                f"{', '.join(sorted(given))}: give a batch_id, too, such as the name of the run"
            )
        batch = await client.submit_many(
            wanted.image_uris,
            durable=wanted.durable,
            batch_webhook=wanted.webhook,
            **options(fields),
        )
        job_ids = [job.id for job in batch.jobs]
        state = BatchState(id=batch.id, total=len(job_ids), ended=0, counts={}, job_ids=job_ids)
        headers = {"Location": str(request.url_for("look_at_batch", batch_id=batch.id).path)}
        return JSONResponse(state.model_dump(mode="json"), HTTPStatus.ACCEPTED, headers)

    @router.get(
        "/{batch_id}", response_model=BatchState, responses=answers(404), summary="Look at a batch"
    )
    async def look_at_batch(
        request: Request,
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
            records = None
            with outage_tolerated(waits=bool(wait)):
                ended_jobs = client.session.deployment.ended_in_batch(batch_id, seen, wait)
                records = await while_connected(request, client.session.drive(ended_jobs))
            ended = {i: record and record.public() for i, record in (records or {}).items()}
            return JSONResponse(_state(given, progress) | {"ended_jobs": ended})
        if wait and not _is_over(progress):
            with outage_tolerated(waits=True):
                whole = batch_when_ended(client.session, batch_id, min(wait, LONGEST_WAIT_S))
                found = await while_connected(request, client.session.drive(whole))
                progress = found or progress
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
        batch_id = await _joined(part, len(images), caller)
        bulk = client.session.deployment.bulk(
            lambda job_id: job_id,
            SubmitOptions(
                batch=_membership(batch_id, part),
                keys=[scoped(key, caller) for key in part.idempotency_keys],
                retry_of=lambda number, _: part.retry_of[number] if part.retry_of else "",
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
        each = [outcomes[number] for number in range(len(images))]
        return await _outcomes(part.batch_id or batch_id, batch_id, each, caller)

    async def _join_uploads(part: NewBatchOfUploads, caller: Caller) -> Response:
        wanted = options(of_tenant(part.options.model_dump(exclude_unset=True), caller))
        batch_id = await _joined(part, len(part.upload_ids), caller)
        outcomes: list[dict[str, Any]] = []
        filenames = [*part.filenames, *[""] * len(part.upload_ids)]
        for number, upload_id in enumerate(part.upload_ids):
            try:
                job_id = await uploads.submit(
                    UploadId(upload_id, filenames[number]),
                    wanted,
                    caller,
                    scoped(part.idempotency_keys[number], caller)
                    if part.idempotency_keys
                    else None,
                    durable=part.durable,
                    batch=_membership(batch_id, part),
                    retry_of=part.retry_of[number] if part.retry_of else "",
                )
            except (StoreUnavailable, UnknownModel):
                raise  # concerns all images; those that were accepted are so again
            except (MaskqError, Problem) as error:
                outcomes.append({"error": _told(error)})
            else:
                outcomes.append({"job_id": job_id})
        return await _outcomes(part.batch_id or batch_id, batch_id, outcomes, caller)

    async def _joined(part: BatchPart, images: int, caller: Caller) -> str:
        """The id of the batch that the images join. Raises JobNotFound for another tenant's."""
        if any(given and len(given) != images for given in (part.idempotency_keys, part.retry_of)):
            raise InvalidRequest("idempotency_keys, retry_of: give one for each image, or none")
        batch_id = named_batch(part.batch_id or new_id(), caller)
        found = await client.session.drive(client.session.deployment.batch_progress(batch_id))
        if found and not caller.sees(found.tenant):
            raise JobNotFound(batch_id, kind="batch")
        return batch_id

    async def _outcomes(
        given: str, batch_id: str, outcomes: Sequence[dict[str, Any]], caller: Caller
    ) -> Response:
        state = _state(given, await _progress(batch_id, caller, or_none=True))
        return JSONResponse(state | {"outcomes": outcomes}, HTTPStatus.ACCEPTED)

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


def _membership(batch_id: str, part: BatchPart) -> BatchMembership:
    return BatchMembership(batch_id=batch_id, total=part.total, webhook=part.webhook)


def _told(error: MaskqError | Problem) -> dict[str, str]:
    problem = error if isinstance(error, Problem) else problems.of(error)
    return {"code": error.code.value, "detail": str(problem)}
