"""Asking the gateway: retries with back-off, and errors as exceptions."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Final, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from maskq.backoff import ExponentialBackoff, Jitter
from maskq.client.operations.flow import Flow, Sleep
from maskq.contract import FailureCode
from maskq.errors import JobNotFound, StoreUnavailable
from maskq.http.address import GatewayAddress
from maskq.http.problems import NoSuchSubject, code_of, error_of, is_problem, retry_after_s
from maskq.http.request import Answer, Request

T = TypeVar("T")

_BACKOFF: Final = ExponentialBackoff(first_s=0.2, longest_s=2.0, jitter=Jitter(0.5, 1.0))
_TRIES: Final = 3
_OVERLOADED: Final = (502, 503, 504)
# The rate of a key is counted by the minute.
_RATE_LIMITED_S: Final = 90.0


class Gateway:
    """Flows that send one request and return its answer."""

    def __init__(self, address: GatewayAddress) -> None:
        self.address = address

    def ask(
        self, request: Request, *, expected: Collection[int] = (), within_s: float | None = None
    ) -> Flow[Answer]:
        """The answer, if its status is below 300 or expected.

        The request is sent again if no answer came or the gateway asks for it by Retry-After, unless
        `within_s` seconds would pass. Raises the error that the answer means, StoreUnavailable.
        """
        began, tries = time.monotonic(), 0
        while True:
            tries += 1
            error: Exception
            try:
                answer: Answer = yield request
            except StoreUnavailable as unreachable:
                error, pause_s = unreachable, _BACKOFF.pause_s(tries)
                again = tries < _TRIES
            else:
                if answer.status < 300 or answer.status in expected:
                    return replace(answer, tries=tries)
                error = error_of(answer, self.address)
                pause_s = retry_after_s(answer) or _BACKOFF.pause_s(tries)
                again = _may_pass(answer, tries, time.monotonic() - began + pause_s)
            if within_s is not None and time.monotonic() - began + pause_s > within_s:
                again = False
            if not again:
                raise error
            yield Sleep(pause_s)

    def ask_about(self, kind: str, subject: str, request: Request, **options: Any) -> Flow[Answer]:
        """As `ask`. Raises JobNotFound if the gateway does not know the subject."""
        try:
            return (yield from self.ask(request, **options))
        except NoSuchSubject:
            raise JobNotFound(subject, kind=kind) from None

    def parsed(self, answer: Answer, parse: Callable[[Any], T]) -> T:
        """What `parse` makes of the answer's document. Raises StoreUnavailable for another form."""
        try:
            return parse(answer.json())
        except (ValidationError, KeyError, TypeError, ValueError, AttributeError):
            raise StoreUnavailable(
                f"{self.address.url} answered {answer.status} in a form that this client does not "
                f"know; its version and the client's are too far apart, or MASKQ_GATEWAY_URL does not "
                f"name a gateway"
            ) from None


def segment(subject: str, kind: str) -> str:
    """An id as one segment of a path. Raises JobNotFound for one that cannot be in a path."""
    if not subject or "/" in subject or subject in (".", ".."):
        raise JobNotFound(subject, kind=kind)
    return quote(subject.encode(errors="surrogateescape"), safe="")


def _may_pass(answer: Answer, tries: int, until_next_s: float) -> bool:
    """Whether the same request may succeed later."""
    code = code_of(answer.json()) if is_problem(answer) else FailureCode.STORE_UNAVAILABLE
    if code is FailureCode.SUBMIT_RATE_EXCEEDED:  # the caller decides, by queue_full_timeout
        return False
    if answer.status == 429:
        return until_next_s < _RATE_LIMITED_S
    return answer.status in _OVERLOADED and code is not FailureCode.QUEUE_FULL and tries < _TRIES
