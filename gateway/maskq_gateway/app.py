"""The route that object stores, EventBridge and SNS notify; the rules start jobs."""

from __future__ import annotations

import logging
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
from maskq_gateway.sources.sns import SnsRefused, Verifier

logger = logging.getLogger(__name__)

PATH = "/v1/triggers/s3"
MAX_BODY = 2**20  # bytes; the stores themselves send a quarter of it at most
_MAX_READ = 8 * MAX_BODY  # of a body that is too large: a sender must finish to read the error
_PING: Call[bool] = Call(None, ("PING",), bool)


def create_app(
    settings: GatewaySettings, client: Client, rules: Rules, *, sns: Verifier | None = None
) -> FastAPI:
    """An app for notifications only. The caller closes `client`. Raises as `add_triggers`."""
    app = FastAPI(title="maskq gateway", docs_url=None, redoc_url=None, openapi_url=None)
    problems.handle(app)
    add_triggers(app, settings, client, rules, sns=sns)

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
    sns: Verifier | None = None,
) -> None:
    """Add the route that object stores notify. Raises InvalidRequest if no sender could be accepted.

    sns: instead of a verifier of the settings' topics.
    """
    if not settings.tokens and not settings.trigger_sns_topics:
        raise InvalidRequest(
            "this gateway accepts no notifications: set MASKQ_TRIGGER_TOKENS to secrets of your own, "
            "or MASKQ_TRIGGER_SNS_TOPICS to the ARNs of your topics"
        )
    authorizer = _Authorizer(Tokens(settings.tokens), sns or Verifier(settings.trigger_sns_topics))
    triggers = Triggers(client, rules)

    async def accepted_body(request: Request) -> bytes:
        """The body. Without a token it is read only if SNS may have sent it, which signs it."""
        if not settings.trigger_sns_topics and not authorizer.has_token(request):
            raise _unauthorized()
        return await _body(request)

    def notify(request: Request, body: bytes = Depends(accepted_body)) -> Response:
        event = authorizer.accept(request, body)
        if notifications.is_sns(event) and authorizer.is_about_topic(event):
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
    """Accepts notifications that have a valid token, or a valid signature of SNS."""

    def __init__(self, tokens: Tokens, sns: Verifier) -> None:
        self._tokens = tokens
        self._sns = sns

    def has_token(self, request: Request) -> bool:
        """Whether a request has a valid token."""
        return self._tokens.accept(request.headers)

    def accept(self, request: Request, body: bytes) -> dict[str, Any]:
        """The JSON of a body whose sender may notify. Raises Problem."""
        has_token = self.has_token(request)
        try:
            event = notifications.parse(body)
        except NotAnEvent as error:
            raise (_not_an_event(error) if has_token else _unauthorized()) from None
        if not has_token:
            if not notifications.is_sns(event):
                raise _unauthorized()
            self._verify(event)
        return event

    def is_about_topic(self, message: dict[str, Any]) -> bool:
        """Whether an SNS message is about its subscription. Confirms a new subscription."""
        if message["Type"] == "Notification":
            return False
        if message["Type"] == "SubscriptionConfirmation":
            try:
                self._sns.confirm(message)
            except SnsRefused as error:
                raise Problem(HTTPStatus.FORBIDDEN, error.code, str(error)) from None
            logger.info("subscribed to %s", message["TopicArn"])
        return True

    def _verify(self, message: dict[str, Any]) -> None:
        try:
            self._sns.verify(message)
        except SnsRefused as error:
            logger.warning("%s", error)
            raise Problem(HTTPStatus.UNAUTHORIZED, error.code, str(error)) from None


def _not_an_event(error: NotAnEvent) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, FailureCode.INVALID_REQUEST, str(error))


def _unauthorized() -> Problem:
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        FailureCode.ACCESS_DENIED,
        "the request has no token of MASKQ_TRIGGER_TOKENS (as Bearer, as X-Api-Key or as the password "
        "of Basic), and SNS did not sign it for a topic of MASKQ_TRIGGER_SNS_TOPICS",
    )


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
