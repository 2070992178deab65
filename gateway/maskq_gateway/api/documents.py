"""What OpenAPI says beyond what FastAPI finds out by itself."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel

from maskq.contract.locations.source import MAX_FILE_NAME
from maskq.contract.options import JobOptions
from maskq_gateway.api.schemas import ProblemDocument
from maskq_gateway.http_limits import HEAD_BYTES

_REFERENCE: Final = "#/components/schemas/{model}"
_EVERY: Final = (401, 403, 422, 429, 500, 503)  # any route with a key may answer so
_OF_SERVER: Final[dict[int | str, dict[str, Any]]] = {  # they have no body (http_limits.py)
    408: {"description": "The request arrived too slowly."},
    431: {"description": f"URL and headers together have more than {HEAD_BYTES} bytes."},
}
OF_BODIES: Final = (400, 413, 415)  # any route that reads a body


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route with a key: those of every route, and `statuses`."""
    documented: dict[int | str, dict[str, Any]] = {
        status: problem(status) for status in {*_EVERY, *statuses}
    }
    return dict(sorted((documented | _OF_SERVER).items()))


def problem(status: int) -> dict[str, Any]:
    """An error as a route declares it."""
    reference = {"$ref": _REFERENCE.format(model=ProblemDocument.__name__)}
    return {
        "description": HTTPStatus(status).phrase,
        "content": {"application/problem+json": {"schema": reference}},
    }


def described(*models: type[BaseModel], multipart: bool = False) -> dict[str, Any]:
    """The body of a route that reads it by itself, as one of `models`."""
    references = [{"$ref": _REFERENCE.format(model=model.__name__)} for model in models]
    schema = references[0] if len(references) == 1 else {"anyOf": references}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if multipart:
        content["multipart/form-data"] = {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": {"type": "string", "format": "binary"}, **_more()},
                "additionalProperties": False,
                "description": "The file in `image`, its name in `filename` (default: the file's own), "
                "and options of a job as further fields: lists are repeated or separated by commas, "
                "objects are JSON.",
            }
        }
    return {"requestBody": {"required": True, "content": content}}


def _more() -> dict[str, Any]:
    """The properties of a form beside the image."""
    options: dict[str, Any] = JobOptions.model_json_schema(ref_template=_REFERENCE)["properties"]
    return {"filename": {"type": "string", "maxLength": MAX_FILE_NAME}, **options}


def add_schemas(document: dict[str, Any], *models: type[BaseModel]) -> None:
    """Put models into the document that no route declares."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in models:
        found = model.model_json_schema(ref_template=_REFERENCE)
        schemas |= found.pop("$defs", {})
        schemas[model.__name__] = found
