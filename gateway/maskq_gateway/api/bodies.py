"""Request bodies, read within limits."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from maskq.client.image_source import NamedImage
from maskq.contract.failures import FailureCode
from maskq.contract.locations.source import MAX_FILE_NAME
from maskq.contract.options import OPTIONS
from maskq.errors import InvalidRequest
from maskq_gateway.problems import Problem

LARGEST_JSON = 2**20  # bytes
_FORM_OVERHEAD = 2**20  # bytes of a multipart body that are not the image
_MOST_FIELDS = 64
_KINDS = {option.name: option.kind for option in OPTIONS}


async def json_of(request: Request, *, or_form: bool = False) -> dict[str, Any]:
    """The JSON object in the body. Raises Problem 400, 413 or 415.

    or_form: whether the route also takes multipart/form-data.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            FailureCode.INVALID_REQUEST,
            f"the request {f'has Content-Type {kind!r:.100}' if kind else 'has no Content-Type'}; send "
            f"application/json{', or multipart/form-data with the image' if or_form else ''}",
        )
    body = b"".join([part async for part in _limited(request, LARGEST_JSON)])
    try:
        document = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _bad(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise _bad("the body must be a JSON object")
    return document


@asynccontextmanager
async def form_of(request: Request, max_image_bytes: int) -> AsyncIterator[FormData]:
    """The fields of a multipart body; files are closed at the end. Raises Problem 400 or 413."""
    stream = _limited(request, max_image_bytes + _FORM_OVERHEAD)
    parser = MultiPartParser(
        request.headers,
        stream,
        max_files=1,
        max_fields=_MOST_FIELDS,
        max_part_size=LARGEST_JSON,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, HTTPException, KeyError, UnicodeDecodeError) as error:
        said = getattr(error, "message", None) or getattr(error, "detail", None) or str(error)
        raise _bad(f"the multipart body cannot be read: {said}") from None
    try:
        yield form
    finally:
        await form.close()


async def _limited(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """The body's parts. Raises Problem once there are more bytes than `most`."""
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise _too_large(most)
            yield part
    except ClientDisconnect:
        raise _bad("the body ended too early") from None


async def image_of(form: FormData) -> NamedImage:
    """The file in the field `image`, named by `filename` or by itself. Raises InvalidRequest."""
    images = form.getlist("image")
    if len(images) != 1 or not isinstance(images[0], UploadFile):
        raise InvalidRequest("image: send exactly one file in the multipart field `image`")
    body = await images[0].read()
    if not body:
        raise InvalidRequest("image: the file is empty")
    return NamedImage(checked_filename(form.get("filename", images[0].filename or "")), body)


def checked_filename(name: object) -> str:
    """The file name of an image. Raises InvalidRequest."""
    if not isinstance(name, str) or len(name) > MAX_FILE_NAME:
        raise InvalidRequest(f"filename: give a text of at most {MAX_FILE_NAME} characters")
    return name


def options_of(form: FormData) -> dict[str, Any]:
    """The other fields as fields of a request, which are not checked yet. Raises InvalidRequest.

    A list is a field that is repeated or holds commas; an object is JSON; anything else stays text.
    """
    names = dict.fromkeys(
        name for name, _ in form.multi_items() if name not in ("image", "filename")
    )
    return {name: _value_of(name, form.getlist(name)) for name in names}


def _value_of(name: str, values: Sequence[UploadFile | str]) -> Any:
    if any(isinstance(value, UploadFile) for value in values):
        raise InvalidRequest(f"{name}: is not a file; only `image` is")
    texts = [str(value) for value in values]
    kind = _KINDS.get(name, str)
    if kind is frozenset and len(texts) == 1 and texts[0].startswith("["):
        try:
            return json.loads(texts[0])  # names with commas in them
        except ValueError:
            raise InvalidRequest(f"{name}: begins with '[' and is not a JSON list") from None
    if kind is frozenset:
        return [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if len(texts) > 1:
        raise InvalidRequest(f"{name}: is given {len(texts)} times")
    if kind is dict:
        try:
            return json.loads(texts[0])
        except ValueError:
            raise InvalidRequest(f"{name}: must be a JSON object") from None
    return texts[0]


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _bad(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, FailureCode.INVALID_REQUEST, detail)


def _too_large(most: int) -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        FailureCode.IMAGE_TOO_LARGE,
        f"the body is larger than {most} bytes; larger images go to the store by POST /v1/uploads",
    )
