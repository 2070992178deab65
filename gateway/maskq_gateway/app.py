"""The route that object stores and their messengers notify; the rules start jobs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from maskq import Client
from maskq.contract.failures import FailureCode
from maskq.errors import InvalidRequest
from maskq.ledger.calls import Call
from maskq_gateway import problems
from maskq_gateway.access import Tokens
from maskq_gateway.problems import Problem
from maskq_gateway.rules.rule import Rules
from maskq_gateway.rules.triggers import Refused, Skipped, Started, Triggers
from maskq_gateway.settings import GatewaySettings
from maskq_gateway.sources import notifications
from maskq_gateway.sources.notifications import NotAnEvent
from maskq_gateway.sources.signer import SignatureRefused, Signer

logger = logging.getLogger(__name__)

PATH = "/v1/triggers/s3"
MAX_BODY = 2**20  # bytes; the stores themselves send a quarter of it at most
_MAX_READ = 8 * MAX_BODY  # of a body that is too large: a sender must finish to read the error
_PING: Call[bool] = Call(None, ("PING",), bool)


def create_app(
    settings: GatewaySettings,
    client: Client,
    rules: Rules,
    *,
    signers: Sequence[Signer] | None = None,
) -> FastAPI:
    """An app for notifications only. The caller closes `client`. Raises as `add_triggers`."""
    app = FastAPI(title="maskq gateway", docs_url=None, redoc_url=None, openapi_url=None)
    problems.handle(app)
    add_triggers(app, settings, client, rules, signers=signers)

    def healthz() -> dict[str, str]:
        client.session.run(_PING)
        return {"status": "ok"}

    app.add_api_route("/healthz", healthz, methods=["GET"])
    return app


def add_triggers(
    app: FastAPI,
    settings: GatewaySettings,
    client: Client,
    rules: Rules,
    *,
    signers: Sequence[Signer] | None = None,
) -> None:
    """Add the route that object stores notify. Raises InvalidRequest if no sender could be accepted.

    signers: instead of those of the settings.
    """
    if signers is None:
        signers = [signer(settings) for signer in notifications.SIGNERS]
    authorizer = _Authorizer(Tokens(settings.tokens), signers)
    if not settings.tokens and not authorizer.accepts_signatures:
        ways = "".join(f", or {signer.enabled_by}" for signer in signers)
        raise InvalidRequest(
            "this gateway accepts no notifications: set MASKQ_TRIGGER_TOKENS to secrets of your own"
            + ways
        )
    triggers = Triggers(client, rules)

    async def accepted_body(request: Request) -> bytes:
        """The body. Without a token it is read only if a sender may have signed it."""
        if not authorizer.accepts_signatures and not authorizer.has_token(request):
            raise authorizer.unauthorized()
        return await _body(request)

    def notify(request: Request, body: bytes = Depends(accepted_body)) -> Response:
        event = authorizer.accept(request, body)
        if authorizer.is_about_subscription(event):
            return _answer([])
        try:
            created = notifications.read(event)
        except NotAnEvent as error:
            raise _not_an_event(error) from None
        return _answer(triggers.start(created))

    def probe() -> Response:
        """MinIO checks with this request that its target exists."""
        return Response(status_code=HTTPStatus.OK)

    route = partial(app.add_api_route, PATH, include_in_schema=False)
    route(notify, methods=["POST"])
    route(probe, methods=["GET", "HEAD"])


class _Authorizer:
    """Accepts notifications that have a valid token, or a valid signature of their sender."""

    def __init__(self, tokens: Tokens, signers: Sequence[Signer]) -> None:
        self._tokens = tokens
        self._signers = signers

    @property
    def accepts_signatures(self) -> bool:
        """Whether any sender may notify without a token."""
        return any(signer.is_enabled for signer in self._signers)

    def has_token(self, request: Request) -> bool:
        """Whether a request has a valid token."""
        return self._tokens.accept(request.headers)

    def accept(self, request: Request, body: bytes) -> dict[str, Any]:
        """The JSON of a body whose sender may notify. Raises Problem."""
        has_token = self.has_token(request)
        try:
            event = notifications.parse(body)
        except NotAnEvent as error:
            raise (_not_an_event(error) if has_token else self.unauthorized()) from None
        if not has_token:
            self._verify(request.headers, event)
        return event

    def is_about_subscription(self, event: dict[str, Any]) -> bool:
        """Whether an event is about a sender's subscription. Confirms a new subscription."""
        signer = self._signer(event)
        if signer is None:
            return False
        try:
            return signer.handle(event)
        except SignatureRefused as error:
            raise Problem(HTTPStatus.FORBIDDEN, error.code, str(error)) from None

    def unauthorized(self) -> Problem:
        """The answer to a request that has neither a token nor a signature."""
        unsigned = "".join(f", and {signer.unsigned}" for signer in self._signers)
        return Problem(
            HTTPStatus.UNAUTHORIZED,
            FailureCode.ACCESS_DENIED,
            "the request has no token of MASKQ_TRIGGER_TOKENS (as Bearer, as X-Api-Key or as the "
            f"password of Basic){unsigned}",
        )

    def _verify(self, headers: Mapping[str, str], event: dict[str, Any]) -> None:
        signer = self._signer(event)
        if signer is None:
            raise self.unauthorized()
        try:
            signer.verify(headers, event)
        except SignatureRefused as error:
            logger.warning("%s", error)
            raise Problem(HTTPStatus.UNAUTHORIZED, error.code, str(error)) from None

    def _signer(self, event: dict[str, Any]) -> Signer | None:
        return next((signer for signer in self._signers if signer.recognises(event)), None)


def _not_an_event(error: NotAnEvent) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, FailureCode.INVALID_REQUEST, str(error))


async def _body(request: Request) -> bytes:
    """The whole body. Raises Problem for one that is too large."""
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size <= MAX_BODY:
                parts.append(part)
            elif size > _MAX_READ:
                break
    except ClientDisconnect:
        raise Problem(
            HTTPStatus.BAD_REQUEST, FailureCode.INVALID_REQUEST, "the body ended too early"
        ) from None
    if size > MAX_BODY:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            FailureCode.INVALID_REQUEST,
            f"the body is larger than {MAX_BODY} bytes; send fewer objects in one notification",
        )
    return b"".join(parts)


def _answer(outcomes: list[Started | Skipped | Refused]) -> JSONResponse:
    """The answer. Raises Problem if a rule's job was refused; the other jobs are started."""
    jobs = [{"rule": o.rule, "job_id": o.job_id} for o in outcomes if isinstance(o, Started)]
    skipped = [{"key": o.key, "reason": o.reason} for o in outcomes if isinstance(o, Skipped)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    if refused:
        said = "; ".join(map(str, refused))
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, refused[0].error.code, said, jobs=jobs, skipped=skipped
        )
    status = HTTPStatus.ACCEPTED if jobs else HTTPStatus.OK
    return JSONResponse({"jobs": jobs, "skipped": skipped}, status)
