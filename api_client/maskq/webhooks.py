"""For receivers: is this webhook ours, and what does it say?

    from maskq import webhooks
    event = webhooks.verify(request.headers, await request.body())

Any library for Standard Webhooks does the same.
"""

from __future__ import annotations

import secrets
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from maskq import environment
from maskq.contract import Event
from maskq.contract.webhooks.signing import (
    ID,
    SECRET_PREFIX,
    SIGNATURE,
    TIMESTAMP,
    decode_secret,
    is_signed_by,
)
from maskq.errors import InvalidRequest, WebhookRefused

__all__ = ["WebhookRefused", "new_secret", "verify"]

SETTING = "MASKQ_WEBHOOK_SECRET"
_TOLERANCE_S = 300.0


def verify(
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    secret: str | Iterable[str] | None = None,
    tolerance_s: float = _TOLERANCE_S,
) -> Event:
    """The event of a delivery that was signed with one of the secrets, at most `tolerance_s` ago.

    headers: any mapping of their names, in any case. body: the bytes as received; decoded and encoded
    again they may differ. secret: one or several `whsec_…`; left out: MASKQ_WEBHOOK_SECRET. Raises
    WebhookRefused: answer 400 and do nothing. A delivery may come twice: `event.id` is the same then.
    """
    keys = keys_of(environment.value(SETTING) or "" if secret is None else secret)
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, sent, signatures = given[ID], given[TIMESTAMP], given[SIGNATURE]
    except KeyError as error:
        raise WebhookRefused(f"the header {error.args[0]} is missing") from None
    raw = body.encode() if isinstance(body, str) else bytes(body)
    if not (sent.isascii() and sent.isdigit() and len(sent) < 16):
        raise WebhookRefused(f"the header {TIMESTAMP} is no number of seconds")
    if abs(time.time() - int(sent)) > tolerance_s:
        raise WebhookRefused(
            f"it was signed more than {tolerance_s:g} s from now: a replay, or a clock"
        )
    if not is_signed_by(keys, signatures, message_id, int(sent), raw):
        raise WebhookRefused(
            "no signature fits: another secret, or the body was changed on its way"
        )
    try:
        return Event.model_validate_json(raw)
    except ValidationError:
        raise WebhookRefused("it is signed, but is no event of ours") from None


def keys_of(secret: str | Iterable[str]) -> list[bytes]:
    """The keys of one or several secrets; in one string they are separated by spaces.

    Raises InvalidRequest for what is no secret.
    """
    texts = secret.split() if isinstance(secret, str) else list(secret)
    if not texts:
        raise InvalidRequest("no webhook secret is given: set MASKQ_WEBHOOK_SECRET")
    try:
        return [decode_secret(text) for text in texts]
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


def new_secret() -> str:
    """A secret of 32 random bytes."""
    return SECRET_PREFIX + b64encode(secrets.token_bytes(32)).decode()
