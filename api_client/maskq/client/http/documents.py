"""The API's documents as the contract's types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskq.client.requests import build
from maskq.contract import Event, JobRecord, JobStatus, SegmentRequest
from maskq.contract.locations.output_places import STORED
from maskq.contract.models import DefaultModel, ServedModel
from maskq.contract.options import Options
from maskq.errors import InvalidRequest, MaskqError
from maskq.http import problems
from maskq.http.request import Message
from maskq.ledger.calls import BatchProgress, Page
from maskq.ledger.calls.models import Known


def record(document: Mapping[str, Any]) -> JobRecord:
    """A record. Options that this version does not know are left out."""
    request = {
        name: value
        for name, value in document["request"].items()
        if name in SegmentRequest.model_fields
    }
    asked = SegmentRequest.model_validate(request, context=STORED)
    return JobRecord.model_validate({**document, "request": asked})


def record_or_none(document: Mapping[str, Any] | None) -> JobRecord | None:
    return None if document is None else record(document)


def page(document: Mapping[str, Any]) -> Page:
    return Page(tuple(map(record, document["jobs"])), document["cursor"])


def progress(document: Mapping[str, Any]) -> BatchProgress:
    """How far a batch is, without the ids of ended jobs."""
    counts = {JobStatus(status): int(number) for status, number in document["counts"].items()}
    return BatchProgress(int(document["total"]), counts, ())


def known_models(document: Mapping[str, Any]) -> Known:
    return Known(
        tuple(map(ServedModel.model_validate, document["models"])),
        DefaultModel.model_validate(document["default"]),
    )


def outcome(document: Mapping[str, Any]) -> str | MaskqError:
    """The id of a batch's new job, or why the gateway refused its image."""
    if "error" in document:
        refused = document["error"]
        return problems.error(problems.code_of(refused), str(refused.get("detail", "")))
    return str(document["job_id"])


def event(message: Message) -> Event:
    made = Event.model_validate_json(message.data)
    return made.model_copy(update={"cursor": message.id})


def asked(options: Options, image_uri: str = "s3://bucket/key") -> dict[str, Any]:
    """The fields of a request that the caller chose, as JSON values. Raises InvalidRequest."""
    request = build(image_uri, options)
    return request.model_dump(mode="json", exclude_unset=True, exclude_none=True)


def checked_uri(image_uri: str) -> str | InvalidRequest:
    """The URI as a request holds it, or why it is not valid."""
    try:
        return build(image_uri, {}).image_uri
    except InvalidRequest as error:
        return error
