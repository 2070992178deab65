"""Which error an answer of the gateway means: the same exceptions that a direct client raises."""

from __future__ import annotations

from typing import Any, Final

from maskq.contract import FailureCode
from maskq.errors import (
    EventsLost,
    IdempotencyConflict,
    InvalidRequest,
    MaskqError,
    QueueFull,
    StoreRefused,
    StoreUnavailable,
    SubmitRateExceeded,
    UnknownModel,
)
from maskq.http.address import GatewayAddress
from maskq.http.request import Answer

_KEY = "check MASKQ_API_KEY (`maskq keys create` makes a key)"
_LONGEST_DETAIL: Final = 2000

_BY_CODE: Final[dict[FailureCode, type[MaskqError]]] = {
    FailureCode.INVALID_REQUEST: InvalidRequest,
    FailureCode.IMAGE_TOO_LARGE: InvalidRequest,
    FailureCode.INVALID_IMAGE: InvalidRequest,
    FailureCode.IDEMPOTENCY_CONFLICT: IdempotencyConflict,
    FailureCode.UNKNOWN_MODEL: UnknownModel,
    FailureCode.QUEUE_FULL: QueueFull,
    FailureCode.SUBMIT_RATE_EXCEEDED: SubmitRateExceeded,
    FailureCode.STORE_UNAVAILABLE: StoreUnavailable,
    FailureCode.RATE_LIMITED: StoreUnavailable,
    FailureCode.NOT_FOUND: StoreRefused,
    FailureCode.ACCESS_DENIED: StoreRefused,
    FailureCode.BUCKET_NOT_ALLOWED: StoreRefused,
    FailureCode.SOURCE_CHANGED: StoreRefused,
    FailureCode.STORE_REFUSED: StoreRefused,
}


class NoSuchSubject(Exception):
    """The gateway knows no such job, batch or delivery, or not for this key's tenant."""


def is_problem(answer: Answer) -> bool:
    """Whether the gateway itself wrote this error."""
    return answer.content_type == "application/problem+json" and isinstance(answer.json(), dict)


def error_of(answer: Answer, address: GatewayAddress) -> Exception:
    """The error that an answer with a status of 300 or more means."""
    if not is_problem(answer):
        return _not_of_a_gateway(answer, address)
    document = answer.json()
    detail = str(document.get("detail", ""))[:_LONGEST_DETAIL]
    code = code_of(document)
    if answer.status == 404 and code is FailureCode.INVALID_REQUEST:
        return StoreUnavailable(
            f"the gateway {address.url} has no such route ({detail}); it is of another version than "
            f"this client, or MASKQ_GATEWAY_URL names another path"
        )
    if answer.status == 404 and code is FailureCode.NOT_FOUND:
        return NoSuchSubject(detail)
    if answer.status == 410:
        return EventsLost(detail)
    if answer.status in (401, 403):
        detail = f"the gateway {address.url} refused: {detail}; {_KEY}"
    if code is FailureCode.SUBMIT_RATE_EXCEEDED:
        return SubmitRateExceeded(detail, retry_after_s(answer))
    return error(code, detail)


def retry_after_s(answer: Answer) -> float:
    """The seconds of `Retry-After`; 0 if the answer has none."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0


def code_of(document: dict[str, Any]) -> FailureCode:
    """The code of a problem. One that this version does not know counts as internal."""
    try:
        return FailureCode(document.get("code", ""))
    except ValueError:
        return FailureCode.INTERNAL


def error(code: FailureCode, detail: str) -> MaskqError:
    """The exception with this code."""
    made = _BY_CODE.get(code, MaskqError)(detail)
    made.code = code
    return made


def _not_of_a_gateway(answer: Answer, address: GatewayAddress) -> StoreUnavailable:
    """A proxy, or a program that is not the gateway, answered."""
    if 300 <= answer.status < 400:
        return StoreUnavailable(
            f"{address.url} redirects to {answer.headers.get('location', 'nowhere')!r:.200}; redirects "
            f"are not followed, because they would show the API key to another host: set "
            f"MASKQ_GATEWAY_URL to the address of the gateway itself"
        )
    return StoreUnavailable(
        f"{address.url} answered {answer.status} with {answer.content_type or 'no content type'} "
        f"instead of the HTTP API's own form; check that MASKQ_GATEWAY_URL names a gateway, that it "
        f"runs, and that its version is not older than this client's"
    )
