"""The gateway over HTTP: object stores, EventBridge and SNS post, and jobs are started."""

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
LARGEST_BODY = 2**20  # bytes; the stores' own limit is a quarter of it
_READ_ON = 8 * LARGEST_BODY  # of a body too large: a sender that is cut off never reads why
_PING: Call[bool] = Call(None, ("PING",), bool)


def create_app(
    settings: GatewaySettings, client: Client, rules: Rules, *, sns: Verifier | None = None
) -> FastAPI:
    """Notifications alone; `client` stays its caller's to close. Raises as `add_triggers`."""
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
    """Add the route that object stores notify. Raises InvalidRequest where nobody could notify it.

    sns: instead of a verifier of the settings' topics.
    """
    if not settings.tokens and not settings.trigger_sns_topics:
        raise InvalidRequest(
            "nobody may notify this gateway: set MASKQ_TRIGGER_TOKENS to secrets of your own, or "
            "MASKQ_TRIGGER_SNS_TOPICS to the ARNs of your topics"
        )
    door = _Door(Tokens(settings.tokens), sns or Verifier(settings.trigger_sns_topics))
    triggers = Triggers(client, rules)

    async def admitted(request: Request) -> bytes:
        """The body; of a stranger only where SNS may have sent it, whose signature is inside."""
        if not settings.trigger_sns_topics and not door.knows(request):
            raise _unknown()
        return await _body(request)

    def notify(request: Request, body: bytes = Depends(admitted)) -> Response:
        event = door.admit(request, body)
        if notifications.is_sns(event) and door.is_about_topic(event):
            return _answer([])
        try:
            created = notifications.read(event)
        except NotAnEvent as error:
            raise _no_event(error) from None
        return _answer(triggers.start(created))

    def probe() -> Response:
        """MinIO asks so whether its target is there."""
        return Response(status_code=HTTPStatus.OK)

    route = partial(app.add_api_route, PATH, include_in_schema=False)
    route(notify, methods=["POST"])
    route(probe, methods=["GET", "HEAD"])


class _Door:
    """Who is let in, with what."""

    def __init__(self, tokens: Tokens, sns: Verifier) -> None:
        self._tokens = tokens
        self._sns = sns

    def knows(self, request: Request) -> bool:
        """Whether it shows a token."""
        return self._tokens.accept(request.headers)

    def admit(self, request: Request, body: bytes) -> dict[str, Any]:
        """The JSON of a body by somebody who may notify. Raises Problem."""
        known = self.knows(request)
        try:
            event = notifications.parse(body)
        except NotAnEvent as error:
            raise (_no_event(error) if known else _unknown()) from None
        if not known:
            if not notifications.is_sns(event):
                raise _unknown()
            self._verify(event)
        return event

    def is_about_topic(self, message: dict[str, Any]) -> bool:
        """Whether an SNS message tells of its subscription and of no object; confirms a new one."""
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


def _no_event(error: NotAnEvent) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, FailureCode.INVALID_REQUEST, str(error))


def _unknown() -> Problem:
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        FailureCode.ACCESS_DENIED,
        "no token of MASKQ_TRIGGER_TOKENS (as a Bearer, as X-Api-Key or as the password of Basic), "
        "and no message that SNS signed for a topic of MASKQ_TRIGGER_SNS_TOPICS",
    )


async def _body(request: Request) -> bytes:
    """The whole body. Raises Problem for one that is too large."""
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size <= LARGEST_BODY:
                parts.append(part)
            elif size > _READ_ON:
                break
    except ClientDisconnect:
        raise Problem(
            HTTPStatus.BAD_REQUEST, FailureCode.INVALID_REQUEST, "the body ended too early"
        ) from None
    if size > LARGEST_BODY:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            FailureCode.INVALID_REQUEST,
            f"the body is larger than {LARGEST_BODY} bytes; notify of fewer objects at a time",
        )
    return b"".join(parts)


def _answer(outcomes: list[Started | Skipped | Refused]) -> JSONResponse:
    """Raises Problem where a rule's job was refused; the others were started all the same."""
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
