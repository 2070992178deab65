"""/v1/jobs/{id}/outputs: what a job made, by a redirect to the store or through the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from maskq.contract import FailureCode, JobRecord, Output
from maskq.contract.api_keys import Scope
from maskq.contract.locations import S3Uri, is_url
from maskq.contract.outputs import FILES
from maskq.contract.storage_layout import StorageLayout, class_file
from maskq_gateway.api.auth import AskedJob, Authorizer
from maskq_gateway.api.documents import answers
from maskq_gateway.api.store import Store
from maskq_gateway.problems import Problem

_LINK_S = 300  # how long a presigned URL works
_PART_BYTES = 2**18
Delivery = Literal["redirect", "stream"]


class Outputs:
    """The routes, with what they need."""

    def __init__(
        self,
        authorizer: Authorizer,
        store: Store,
        *,
        delivery: Delivery,
        layout: StorageLayout,
    ) -> None:
        self._looks = authorizer.needs_job(Scope.READ)
        self._delivery = delivery
        self._layout = layout
        self._store = store

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/jobs/{job_id}/outputs", tags=["outputs"])
        looks = Depends(self._looks)
        found = answers(404, 409) | {
            200: {"description": "The bytes of the output.", "content": contents()},
            302: {"description": f"A URL that works for {_LINK_S} s."},
        }

        @router.get("/{output}", responses=found, response_class=Response, summary="Get an output")
        async def get(
            output: Output,
            asked: AskedJob = looks,
            delivery: Annotated[
                Delivery | None, Query(description="default: as MASKQ_GATEWAY_OUTPUTS says")
            ] = None,
        ) -> Response:
            """The file of an output."""
            if FILES[output].is_per_class:
                raise _not_found(
                    f"{output} is one file for each class: /outputs/{output}/{{class id}}"
                )
            return await self._answer(self._place_of(asked.record, output), output, delivery)

        @router.get(
            "/{output}/{class_id}",
            responses=found,
            response_class=Response,
            summary="Get the file of a class",
        )
        async def get_of_class(
            output: Output,
            class_id: int,
            asked: AskedJob = looks,
            delivery: Delivery | None = None,
        ) -> Response:
            """Of an output that is one file for each class, such as binary."""
            if not FILES[output].is_per_class:
                raise _not_found(f"{output} is one file: /outputs/{output}")
            record = asked.record
            folder = self._place_of(record, output)
            if record.result is None or class_id not in record.result.labels:
                raise _not_found(f"job {record.id} has no class {class_id} in its result")
            return await self._answer(class_file(folder, output, class_id), output, delivery)

        return router

    def _place_of(self, record: JobRecord, output: Output) -> S3Uri:
        """Raises Problem 404 or 409 where the job has no such file."""
        if record.result is None:
            if record.ended:
                raise _not_found(f"job {record.id} is {record.status.value} and has no outputs")
            raise Problem(
                HTTPStatus.CONFLICT,
                FailureCode.NOT_FOUND,
                f"job {record.id} is {record.status.value}; wait for its end with ?wait=30",
            )
        uri = record.result.outputs.get(output)
        if uri is None:
            made = ", ".join(sorted(record.result.outputs)) or "none"
            raise _not_found(f"job {record.id} has no output {output.value!r}; it made: {made}")
        if is_url(uri):
            raise _not_found(
                f"output {output.value!r} of job {record.id} was put to a URL of its caller's; it is "
                f"there"
            )
        # It is read with the gateway's rights.
        if not self._layout.of(record).is_output(output, uri):
            raise _not_found(
                f"output {output.value!r} of job {record.id} lies outside the job's own folder, so it "
                f"is not read"
            )
        return S3Uri.parse(uri)

    async def _answer(self, place: S3Uri, output: Output, wanted: Delivery | None) -> Response:
        if (wanted or self._delivery) == "redirect":
            url = await self._store.get_link(place, _LINK_S)
            return RedirectResponse(url, HTTPStatus.FOUND, {"Cache-Control": "no-store"})
        found = await self._store.open(place)
        if found is None:
            raise _not_found("the output is not in the store any more")
        headers = {"Content-Length": str(found["ContentLength"]), "Cache-Control": "no-cache"}
        return StreamingResponse(
            _parts(found["Body"]), headers=headers, media_type=FILES[output].content_type
        )


def _not_found(detail: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, FailureCode.NOT_FOUND, detail)


def _parts(body: Any) -> Iterator[bytes]:
    try:
        yield from body.iter_chunks(_PART_BYTES)
    finally:
        body.close()


def contents() -> dict[str, Any]:
    """The content types of all outputs, for OpenAPI."""
    schema = {"schema": {"type": "string", "format": "binary"}}
    return dict.fromkeys(sorted(files.content_type for files in FILES.values()), schema)
