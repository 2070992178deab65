"""/v1/jobs: submit, look, wait, list, cancel, retry, delete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from maskq import AsyncClient
from maskq.client.image_source import NamedImage
from maskq.client.job import AsyncJob, record_when_ended
from maskq.contract import FailureCode, JobRecord, JobStatus, SegmentRequest
from maskq.contract.api_keys import Scope
from maskq.contract.options import OPTIONS
from maskq.contract.queueing.waiting import Waiting
from maskq.errors import InvalidRequest
from maskq.ledger import calls
from maskq.ledger.calls import queueing
from maskq.validation import sentence
from maskq_gateway.api.auth import AskedJob, Authorizer, Caller, named_batch, of_tenant, scoped
from maskq_gateway.api.bodies import (
    checked_filename,
    form_of,
    image_of,
    json_of,
    options_of,
)
from maskq_gateway.api.documents import OF_BODIES, answers, described
from maskq_gateway.api.schemas import (
    LONGEST_WAIT_S,
    JobPage,
    JobView,
    NewJob,
    NewJobOfUpload,
    Wait,
)
from maskq_gateway.api.uploads import UploadId, Uploads
from maskq_gateway.problems import Problem
from maskq_gateway.waiting import outage_tolerated, while_connected

_RETRY_AFTER_S = 1


class Jobs:
    """The routes, with what they need."""

    def __init__(
        self,
        client: AsyncClient,
        authorizer: Authorizer,
        uploads: Uploads,
        max_upload_bytes: int,
    ) -> None:
        self._client = client
        self._uploads = uploads
        self._max_upload_bytes = max_upload_bytes
        self._submits = authorizer.needs(Scope.SUBMIT)
        self._reads = authorizer.needs(Scope.READ)
        self._looks = authorizer.needs_job(Scope.READ)
        self._changes = authorizer.needs_job(Scope.SUBMIT)

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
        submits, reads = Depends(self._submits), Depends(self._reads)
        looks, changes = Depends(self._looks), Depends(self._changes)

        @router.post(
            "",
            status_code=HTTPStatus.ACCEPTED,
            response_model=JobRecord,
            responses=answers(*OF_BODIES, 404, 409, 410)
            | {200: {"model": JobRecord, "description": "It has ended."}},
            openapi_extra=described(NewJob, NewJobOfUpload, multipart=True),
            summary="Submit an image",
        )
        async def submit(
            request: Request,
            caller: Caller = submits,
            wait: Annotated[Wait, Query()] = 0.0,
            prefer: Annotated[str | None, Header(description="`wait=N` seconds")] = None,
            idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
            durable: Annotated[
                bool, Query(description="Answer only once Redis has written the job to disk.")
            ] = False,
        ) -> Response:
            """Ask for one image to be segmented: JSON that names it or its upload, or multipart with
            the field `image`. The job is safe once this is answered."""
            image, wanted = await self._submission(request)
            wanted = of_tenant(wanted, caller)
            key = idempotency_key and scoped(idempotency_key, caller)
            if isinstance(image, UploadId):
                job_id = await self._uploads.submit(
                    image, options(wanted), caller, key, durable=durable
                )
            else:
                fields = options(wanted, image) if isinstance(image, str) else options(wanted)
                job_id = (
                    await self._client.submit(image, idempotency_key=key, durable=durable, **fields)
                ).id
            found = await self._client.session.run(calls.get(job_id))
            record = AskedJob(caller, job_id, found).record
            record = await self._ended(request, record, wait or preferred_wait_s(prefer))
            status = HTTPStatus.OK if record.ended else HTTPStatus.ACCEPTED
            return self._answer(request, record, status)

        @router.get("", response_model=JobPage, responses=answers(), summary="List jobs")
        async def list_jobs(
            caller: Caller = reads,
            status: JobStatus | None = None,
            code: FailureCode | None = None,
            model: str | None = None,
            tenant: str | None = None,
            batch_id: str | None = None,
            source: Annotated[
                str | None,
                Query(
                    max_length=8192,
                    description="`s3://bucket/key` (any version), a URL, or a file name as given.",
                ),
            ] = None,
            ended_since: Annotated[
                float | None, Query(description="Seconds since the epoch; in the order of ending.")
            ] = None,
            limit: Annotated[int, Query(ge=1, le=1000)] = 100,
            cursor: Annotated[str, Query(max_length=200)] = "",
        ) -> Response:
            """Newest first, a page at a time."""
            if not caller.sees(tenant) and tenant is not None:
                return JSONResponse({"jobs": [], "cursor": ""})
            page = await self._client.list(
                status=status,
                code=code,
                model=model,
                tenant=caller.tenant or tenant,
                batch_id=batch_id and named_batch(batch_id, caller),
                source=source,
                ended_since=ended_since,
                limit=limit,
                cursor=cursor,
            )
            return JSONResponse(
                {"jobs": [record.public() for record in page.records], "cursor": page.cursor}
            )

        @router.get(
            "/{job_id}",
            response_model=JobView,
            responses=answers(404) | {304: {"description": "As `If-None-Match` says."}},
            summary="Look at a job",
        )
        async def look(
            request: Request,
            asked: AskedJob = looks,
            wait: Annotated[Wait, Query()] = 0.0,
            prefer: Annotated[str | None, Header(description="`wait=N` seconds")] = None,
        ) -> Response:
            """The job's record; with `wait`, as soon as it has ended. A queued one has its place in
            the queue."""
            record, wait_s = asked.record, wait or preferred_wait_s(prefer)
            place: dict[str, Any] = {}
            with outage_tolerated(waits=bool(wait_s)):
                record = await self._ended(request, record, wait_s)
                place = await self._place(record)
            return self._answer(request, record, HTTPStatus.OK, place)

        @router.get(
            "/{job_id}/why",
            response_model=Waiting,
            responses=answers(404),
            summary="Say what a job waits for",
        )
        async def why(asked: AskedJob = looks) -> Waiting:
            """A reason for programs and a sentence for people."""
            return await self._client.why(asked.record.id)

        @router.post(
            "/{job_id}/cancel",
            response_model=JobRecord,
            responses=answers(404, 409),
            summary="Cancel a job",
        )
        async def cancel(request: Request, asked: AskedJob = changes) -> Response:
            """Take it back, queued or running. 409 if it had ended before."""
            job = AsyncJob(self._client.session, asked.record, asked.record.id)
            canceled = await job.cancel()
            record = job.record or asked.record
            if not canceled:
                raise Problem(
                    HTTPStatus.CONFLICT,
                    FailureCode.INVALID_REQUEST,
                    f"job {record.id} had {record.status.value} already",
                )
            return self._answer(request, record, HTTPStatus.OK)

        @router.post(
            "/{job_id}/retry",
            status_code=HTTPStatus.ACCEPTED,
            response_model=JobRecord,
            responses=answers(404),
            summary="Retry a job",
        )
        async def retry(request: Request, asked: AskedJob = changes) -> Response:
            """A new job like one that failed, expired or was canceled; asked again, the same one."""
            job = await self._client.retry(asked.record.id)
            return self._answer(request, await job.refresh(), HTTPStatus.ACCEPTED)

        @router.delete(
            "/{job_id}",
            status_code=HTTPStatus.NO_CONTENT,
            response_class=Response,
            responses=answers(404),
            summary="Delete a job",
        )
        async def delete(asked: AskedJob = changes) -> Response:
            """Remove it for good: record, outputs, uploaded image. It is canceled first."""
            await self._client.delete(asked.record.id)
            return Response(status_code=HTTPStatus.NO_CONTENT)

        return router

    async def _ended(self, request: Request, record: JobRecord, wait_s: float) -> JobRecord:
        """The record once the job has ended, or after `wait_s`, or once the caller has gone."""
        if not wait_s or record.ended:
            return record
        session = self._client.session
        waiting = session.drive(record_when_ended(session, record.id, wait_s))
        return await while_connected(request, waiting) or record

    async def _submission(
        self, request: Request
    ) -> tuple[str | NamedImage | UploadId, dict[str, Any]]:
        """The image, by its place, its bytes or its upload, and the options beside it."""
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            async with form_of(request, self._max_upload_bytes) as form:
                return await image_of(form), options_of(form)
        document = await json_of(request, or_form=True)
        uri, upload_id = document.pop("image_uri", None), document.pop("upload_id", None)
        if isinstance(upload_id, str) and uri is None:
            filename = checked_filename(document.pop("filename", ""))
            return UploadId(upload_id, filename), document
        if not isinstance(uri, str) or upload_id is not None:
            raise InvalidRequest(
                "image_uri: name the image as s3://bucket/key or by an https URL, or send it as the "
                "field `image` of multipart/form-data, or name its upload as `upload_id`; one of these"
            )
        return uri, document

    async def _place(self, record: JobRecord) -> dict[str, Any]:
        """The fields of a queued job's place in the queue."""
        if record.status is not JobStatus.QUEUED:
            return {}
        place = await self._client.session.run(queueing.place(record.id))
        eta_s = [round(each, 1) for each in place.eta_s] if place and place.eta_s else None
        return {"position": place.position if place else None, "eta_s": eta_s}

    def _answer(
        self,
        request: Request,
        record: JobRecord,
        status: HTTPStatus,
        more: Mapping[str, Any] | None = None,
    ) -> Response:
        body = json.dumps(record.public() | dict(more or {}), ensure_ascii=False).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if request.method == "GET" and etag in request.headers.get("if-none-match", ""):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        if status is HTTPStatus.ACCEPTED:
            headers["Location"] = str(request.url_for("look", job_id=record.id).path)
            headers["Retry-After"] = str(_RETRY_AFTER_S)
        return Response(body, status, headers, "application/json")


def options(wanted: Mapping[str, Any], image_uri: str = "s3://bucket/key") -> dict[str, Any]:
    """The client's keywords for fields of a request.

    Raises InvalidRequest for a field that is not valid. An `image_uri` is checked here: the client
    would take any other text for the path of a file on this machine.
    """
    try:
        request = SegmentRequest.model_validate({**wanted, "image_uri": image_uri})
    except ValidationError as error:
        raise InvalidRequest(sentence(error)) from None
    given = request.model_fields_set
    return {one.keyword: getattr(request, one.name) for one in OPTIONS if one.name in given}


def preferred_wait_s(prefer: str | None) -> float:
    """Seconds of `Prefer: wait=N` (RFC 7240), at most LONGEST_WAIT_S; other preferences are ignored."""
    for part in (prefer or "").replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "wait" and value.isascii() and value.isdigit():
            return min(float(value), LONGEST_WAIT_S)
    return 0.0
