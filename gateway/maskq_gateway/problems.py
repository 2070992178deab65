"""Errors as application/problem+json (RFC 9457)."""

from __future__ import annotations

import logging
import math
import re
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from maskq.contract.failures import FailureCode
from maskq.errors import (
    EventsLost,
    JobNotFound,
    MaskqError,
    QueueFull,
    StoreUnavailable,
    SubmitRateExceeded,
)
from maskq_gateway.access import CHALLENGE

logger = logging.getLogger(__name__)

_LATER: Final = {
    QueueFull: "too many jobs wait already; send the request again later",
    StoreUnavailable: "the ledger or the object store is unavailable; send the request again later",
}
_RETRY_AFTER_S: Final = {QueueFull: 30, StoreUnavailable: 5}


class Problem(Exception):
    """An error answer. `detail` is for the person who reads the sender's log."""

    def __init__(
        self, status: HTTPStatus, code: FailureCode, detail: str, **members: object
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.members = members  # further members of the document
        self.headers: dict[str, str] = {}
        if status is HTTPStatus.UNAUTHORIZED:
            self.headers["WWW-Authenticate"] = CHALLENGE

    def answer(self) -> JSONResponse:
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": str(self),
            "code": self.code.value,
        }
        return JSONResponse(
            document | self.members,
            self.status.value,
            headers=self.headers,
            media_type="application/problem+json",
        )


def of(error: MaskqError) -> Problem:
    """The answer for an error of maskq. A temporary error asks the sender to try again."""
    if isinstance(error, SubmitRateExceeded):
        problem = Problem(HTTPStatus.TOO_MANY_REQUESTS, error.code, str(error))
        problem.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
        return problem
    for kind, seconds in _RETRY_AFTER_S.items():
        if isinstance(error, kind):
            # Senders need not know the addresses of Redis and the store; the log has them.
            problem = Problem(HTTPStatus.SERVICE_UNAVAILABLE, error.code, _LATER[kind])
            problem.headers["Retry-After"] = str(seconds)
            return problem
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    if isinstance(error, JobNotFound):
        status = HTTPStatus.NOT_FOUND
    if isinstance(error, EventsLost):
        status = HTTPStatus.GONE
    return Problem(status, error.code, str(error))


def handle(app: FastAPI) -> None:
    """Register the handlers of all errors in `app`."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(MaskqError, _maskq_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _fault)


def _refused(request: Request, problem: Problem, reason: object = None) -> JSONResponse:
    """The answer to a refused call, which becomes a line in the log.

    reason: for the log, where it says more than the answer.
    """
    host = request.client.host if request.client else "unknown address"
    key = getattr(request.state, "api_key_id", None)
    logger.warning(
        "refused %s %s from %s%s with %d: %s",
        request.method,
        request.url.path,
        host,
        f" by API key {key}" if key else "",
        problem.status,
        reason or getattr(request.state, "reason_for_log", problem),
    )
    return problem.answer()


def _problem(request: Request, error: Any) -> JSONResponse:
    return _refused(request, error)


def _maskq_error(request: Request, error: Any) -> JSONResponse:
    hides_addresses = isinstance(error, tuple(_LATER))
    return _refused(request, of(error), error if hides_addresses else None)


def _invalid(request: Request, error: Any) -> JSONResponse:
    """A parameter of the path, query or headers is not valid."""
    said = "; ".join(
        f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()
    )
    problem = Problem(HTTPStatus.UNPROCESSABLE_ENTITY, FailureCode.INVALID_REQUEST, said)
    return _refused(request, problem)


def _http_error(request: Request, error: Any) -> JSONResponse:
    """The path does not exist, or does not support the method."""
    status = HTTPStatus(error.status_code)
    said = f"{request.method} {request.url.path}: {status.phrase.lower()}"
    problem = Problem(status, FailureCode.INVALID_REQUEST, said)
    problem.headers.update(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods_of(request)):
        problem.headers["Allow"] = ", ".join(sorted(methods))
    return _refused(request, problem)


def _methods_of(request: Request) -> set[str]:
    """All documented methods of this path. The router names only those of its first route."""
    methods: set[str] = set()
    for template, operations in request.app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), request.url.path):
            methods |= {method.upper() for method in operations}
    return methods


def _fault(_: Request, error: Exception) -> JSONResponse:
    """An internal error; the server logs it with its traceback."""
    said = f"an internal error of the gateway ({type(error).__name__}); its log has the traceback"
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, FailureCode.INTERNAL, said).answer()
