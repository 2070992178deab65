"""/v1/uploads: images that callers put into the store themselves, before they submit the job.

An upload's id is the id of its future job. So the object lies where that job's image lies, another
tenant's upload cannot be named, and submitting it twice returns the same job.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any, NamedTuple, cast

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from maskq import AsyncClient
from maskq.client.direct.sent import sent
from maskq.client.requests import build, fingerprint_of_uploaded, refuse
from maskq.contract import FailureCode, JobRecord, SegmentRequest
from maskq.contract.api_keys import Scope
from maskq.contract.ids import is_own_id, new_id
from maskq.contract.locations.source import file_name
from maskq.contract.options import Options
from maskq.contract.storage_layout import JobStorage
from maskq.errors import IdempotencyConflict, InvalidRequest
from maskq.ledger import calls
from maskq.ledger.calls import BatchMembership
from maskq.telemetry import tracing
from maskq.validation import sentence
from maskq_gateway.api.auth import Authorizer, Caller, of_tenant
from maskq_gateway.api.bodies import json_of
from maskq_gateway.api.documents import OF_BODIES, answers, described
from maskq_gateway.api.schemas import NewUpload, Upload
from maskq_gateway.api.store import Store
from maskq_gateway.problems import Problem

_URL_S = 3600  # how long a presigned URL works
_SUBMIT_S = 2.0 * _URL_S  # an upload that began in time may be submitted until then


class UploadId(NamedTuple):
    """Names an image that was uploaded before."""

    text: str
    filename: str = ""


class Uploads:
    """The route, and the submission of what was uploaded."""

    def __init__(
        self, client: AsyncClient, authorizer: Authorizer, store: Store, max_bytes: int
    ) -> None:
        self._client = client
        self._submits = authorizer.needs(Scope.SUBMIT)
        self._store = store
        self._max_bytes = max_bytes

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/uploads", tags=["uploads"])
        submits = Depends(self._submits)

        @router.post(
            "",
            status_code=HTTPStatus.CREATED,
            response_model=Upload,
            responses=answers(*OF_BODIES),
            openapi_extra=described(NewUpload),
            summary="Begin an upload",
        )
        async def begin(request: Request, caller: Caller = submits) -> Response:
            """A URL of the store to put an image to. Then submit its `upload_id` to /v1/jobs."""
            upload = await self._begun(await json_of(request), caller)
            headers = {"Cache-Control": "no-store"}
            return JSONResponse(upload.model_dump(mode="json"), HTTPStatus.CREATED, headers)

        return router

    async def _begun(self, document: dict[str, Any], caller: Caller) -> Upload:
        try:
            wanted = NewUpload.model_validate(of_tenant(document, caller))
        except ValidationError as error:
            raise InvalidRequest(sentence(error)) from None
        if wanted.bytes > self._max_bytes:
            raise self._too_large(wanted.bytes)
        job = self._client.session.layout.job(new_id(), tenant=wanted.tenant)
        await self._client.session.run(calls.begin_upload(job, _SUBMIT_S))
        url = await self._store.put_link(job.upload, _URL_S, wanted.bytes)
        return Upload(
            upload_id=job.job_id,
            method="PUT",
            url=url,
            headers={"Content-Length": str(wanted.bytes)},
            expires_ms=round(1000 * (time.time() + _URL_S)),
            submit={"upload_id": job.job_id},
        )

    async def submit(
        self,
        upload: UploadId,
        options: dict[str, Any],
        caller: Caller,
        idempotency_key: str | None,
        *,
        durable: bool = False,
        batch: BatchMembership | None = None,
        retry_of: str = "",
    ) -> str:
        """Submit an uploaded image; returns the job's id, which is the upload's.

        With an idempotency key, a second upload of the same bytes (by their ETag) with the same options
        returns the first one's job.

        Raises:
            Problem: 404 for an upload that this caller has not begun; 409 before the image is there;
                410 after its time; 413 for an image that is too large.
            IdempotencyConflict: it was submitted with other options, or the key belongs to another
                request.
        """
        upload_id = upload.text
        if not is_own_id(upload_id):
            raise _unknown(upload_id)
        session = self._client.session
        job = session.layout.job(upload_id, tenant=options.get("tenant"))
        request = build(str(job.upload), cast("Options", options))
        # In this order: whoever submits at the same time writes the job first, then ends the upload.
        left_s = await session.run(calls.find_upload(job))
        record = await session.run(calls.get(upload_id))
        if record:
            await self._refuse_key_of_another(upload_id, request, idempotency_key)
            return self._submitted_before(record, job, request, caller)
        etag = await self._uploaded_etag(job, left_s)
        idempotency = None
        if idempotency_key is not None:
            idempotency = calls.Idempotency(
                key=idempotency_key, fingerprint=fingerprint_of_uploaded(request, etag)
            )
        # The URL may still be used to replace the object, so the job is bound to this one.
        pinned = request.model_copy(update={"image_etag": request.image_etag or etag})
        with tracing.submission() as submitting:
            call = calls.submit(
                upload_id,
                pinned,
                session.limits,
                idempotency=idempotency,
                batch=batch,
                retry_of=retry_of,
                source=file_name(upload.filename),
                trace=submitting.context,
            )
            (answer,) = await session.drive(sent([call], durable))
            refuse(answer, request, idempotency_key)
            submitting.accepted(answer.job_id)
        if answer.outcome is calls.SubmitOutcome.EXISTS and answer.job_id == upload_id:
            return await self.submit(upload, options, caller, None)
        if answer.job_id == upload_id:
            await session.run(calls.upload_submitted(job))
        return answer.job_id

    async def _refuse_key_of_another(
        self, upload_id: str, request: SegmentRequest, idempotency_key: str | None
    ) -> None:
        """Raise IdempotencyConflict if the key belongs to a job other than the upload's."""
        if idempotency_key is None:
            return
        known = await self._client.session.run(calls.known_under(idempotency_key))
        if not known or known[0] == upload_id:
            return
        if await self._client.session.run(calls.get(known[0])):
            answer = calls.Submitted(calls.SubmitOutcome.CONFLICT, known[0])
            refuse(answer, request, idempotency_key)

    def _submitted_before(
        self, record: JobRecord, job: JobStorage, request: SegmentRequest, caller: Caller
    ) -> str:
        if not caller.sees(record.tenant) or not job.is_upload(record.request.image_uri):
            raise _unknown(job.job_id)
        if _without_etag(record.request) != _without_etag(request):
            raise IdempotencyConflict(
                f"upload {job.job_id} was submitted with other options; begin a new upload"
            )
        return record.id

    async def _uploaded_etag(self, job: JobStorage, left_s: float | None) -> str:
        """The ETag of the object as it is now. Raises Problem, InvalidRequest."""
        if left_s is None:
            raise _unknown(job.job_id)
        if left_s <= 0:
            raise Problem(
                HTTPStatus.GONE,
                FailureCode.EXPIRED,
                f"the time to submit upload {job.job_id} is over; begin a new upload",
            )
        found = await self._store.head(job.upload)
        if found is None:
            raise Problem(
                HTTPStatus.CONFLICT,
                FailureCode.NOT_FOUND,
                f"nothing was uploaded for {job.job_id} yet; PUT the image to its URL first",
            )
        if found.size > self._max_bytes:
            raise self._too_large(found.size)
        if found.size == 0:
            raise InvalidRequest(f"upload {job.job_id}: the file is empty")
        return found.etag

    def _too_large(self, size: int) -> Problem:
        return Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            FailureCode.IMAGE_TOO_LARGE,
            f"the image has {size} bytes; an upload may have {self._max_bytes}",
        )


def _without_etag(request: SegmentRequest) -> SegmentRequest:
    return request.redacted().model_copy(update={"image_etag": None})


def _unknown(upload_id: str) -> Problem:
    return Problem(
        HTTPStatus.NOT_FOUND,
        FailureCode.NOT_FOUND,
        f"there is no upload {upload_id:.100}: it was never begun here, or its time is over; POST "
        f"/v1/uploads begins one",
    )
