"""`/` and `/page/{file}`: static files, with a content security policy that allows nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from pathlib import PurePath
from typing import Final

from fastapi import FastAPI, Request, Response

from maskq.contract.failures import FailureCode
from maskq_gateway.problems import Problem

INDEX: Final = "index.html"
# Files of `maskq view`, which shows an image and its mask in the same way.
SHARED: Final = ("look.css", "stage.js")
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "worker-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One static file as it is sent."""

    body: bytes
    media_type: str
    etag: str


def add_page(app: FastAPI) -> None:
    """Add the routes of the page. They need no key: the page asks for one and calls the API."""

    async def index(request: Request) -> Response:
        return _answer(request, page_files()[INDEX])

    async def file(request: Request, name: str) -> Response:
        found = page_files().get(name)
        if found is None or name == INDEX:
            raise Problem(
                HTTPStatus.NOT_FOUND, FailureCode.NOT_FOUND, f"the page has no file {name!r:.100}"
            )
        return _answer(request, found)

    for path, endpoint in (("/", index), ("/page/{name}", file)):
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)


@cache
def page_files() -> dict[str, PageFile]:
    """The files of the page by name; read once."""
    folders = files("maskq_gateway.page").joinpath("static").iterdir()
    shared = (files("maskq.view").joinpath(name) for name in SHARED)
    return {one.name: _read(one.name, one.read_bytes()) for one in (*folders, *shared)}


def _read(name: str, body: bytes) -> PageFile:
    return PageFile(
        body, _TYPES[PurePath(name).suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    )


def _answer(request: Request, file: PageFile) -> Response:
    headers = {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "ETag": file.etag,
        # The browser revalidates each time, so that no old files remain after an upgrade.
        "Cache-Control": "no-cache",
    }
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(file.body, headers=headers, media_type=file.media_type)
