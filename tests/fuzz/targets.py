"""What takes input from outside: each function takes bytes and lets out only what nobody expects."""

from __future__ import annotations

import io
import json
import time
import tomllib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from maskq import webhooks
from maskq.contract import SegmentRequest
from maskq.contract.jobs import Manifest
from maskq.contract.locations import S3Uri
from maskq.contract.webhooks.signing import ID, SIGNATURE, TIMESTAMP, sign
from maskq.errors import InvalidRequest, StoreUnavailable, WebhookRefused
from maskq.inert import printable, without_secrets
from maskq.validation import sentence
from maskq_gateway.rules.rule import Rules
from maskq_gateway.sources import notifications, sns_envelope
from maskq_gateway.sources.notifications import NotAnEvent, ObjectCreated
from maskq_gateway.sources.sns import SnsRefused, Verifier
from maskq_worker.broker import envelope
from maskq_worker.errors import PermanentError
from maskq_worker.imaging import decode

MAX_PIXELS: Final = 1_000_000
TOPIC: Final = "arn:aws:sns:eu-west-1:1:uploads"
_WRITTEN: Final = datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)  # a second after those of the corpus
_SECRET: Final = webhooks.new_secret()


def request(data: bytes) -> None:
    """What a caller asks for: refused in one sentence, or kept as it is."""
    try:
        asked = SegmentRequest.model_validate_json(data)
    except ValidationError as error:
        said = sentence(error)
        assert said
        assert without_secrets(said) == said
        return
    stored = asked.wire()
    if not asked.incomplete and not asked.private().image_uri:
        again = SegmentRequest.model_validate_json(stored)
        assert again.wire() == stored
    assert "?" not in asked.redacted().image_uri.partition("?…")[0] or asked.image_uri.startswith(
        "s3:"
    )


def message(data: bytes) -> None:
    """What lies on a broker's list: Celery gets a message made of checked parts, or nothing."""
    envelope.is_ticket(data)
    try:
        taken: Any = envelope.segment_message(data)
    except envelope.Refused as refused:
        assert refused.reason
        assert len(refused.reason) < 1000
        taken = refused.answer
    if taken is not None:
        assert taken["content-type"] == envelope.DECODED
        assert taken["headers"]["task"] == "maskq.segment"
        assert 0 < len(taken["headers"]["id"]) < 256
        (args, kwargs), nothing, embed = taken["body"]
        assert isinstance(args, list)
        assert isinstance(kwargs, dict)
        assert nothing == {}
        assert isinstance(embed, dict)


def manifest(data: bytes) -> None:
    """`result.json`, which lies where others may write."""
    with suppress(ValidationError):
        found = Manifest.model_validate_json(data)
        found.model_dump_json(exclude_defaults=True)
        for place in found.outputs.values():
            with suppress(ValueError):
                S3Uri.parse(place)


def notification(data: bytes) -> None:
    """What an object store, EventBridge, SNS or a filer posts."""
    try:
        event = notifications.parse(data)
    except NotAnEvent as error:
        assert len(str(error)) < 1000
        return
    with suppress(SnsRefused, StoreUnavailable):
        _verifier().verify(event)
    if sns_envelope.recognises(event):
        with suppress(SnsRefused, StoreUnavailable):
            _verifier().confirm(event)
    try:
        created = notifications.read(event)
    except NotAnEvent as error:
        assert len(str(error)) < 2000
        return
    for one in created:
        assert isinstance(one, ObjectCreated)
        f"{one.bucket}/{one.key}".encode()
        json.dumps(one.state)


def _verifier() -> Verifier:
    def away(url: str) -> bytes:
        assert url.lower().startswith("https://sns.")
        raise StoreUnavailable("no certificate")

    return Verifier(frozenset({TOPIC}), fetch=away, now=lambda: _WRITTEN)


def rules(data: bytes) -> None:
    """A file of rules: its tables are refused in a sentence, or are rules."""
    try:
        document = tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        return
    tables = document.get("rule")
    if isinstance(tables, list):
        with suppress(InvalidRequest):
            Rules.of(tables, own_output=S3Uri("maskq", "maskq"))


def event(data: bytes) -> None:
    """A delivery to a receiver, signed by whoever has the secret."""
    now = int(time.time())
    signature = sign(webhooks.keys_of(_SECRET), "id", now, data)
    headers = {ID: "id", TIMESTAMP: str(now), SIGNATURE: signature}
    with suppress(WebhookRefused):
        found = webhooks.verify(headers, data, secret=_SECRET)
        for read in (found.job, found.batch):
            with suppress(ValueError):
                read()


def image(data: bytes) -> None:
    """An image: its pixels, or the reason in a sentence."""
    try:
        decoded = decode(data, max_pixels=MAX_PIXELS)
    except PermanentError as error:
        assert error.message
        return
    assert decoded.image.mode == "RGB"
    assert decoded.image.width * decoded.image.height <= MAX_PIXELS
    decoded.image.save(io.BytesIO(), "PPM")  # every pixel is there
    assert all(printable(note) == note for note in decoded.notes)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "request": request,
    "envelope": message,
    "manifest": manifest,
    "notification": notification,
    "rules": rules,
    "event": event,
    "image": image,
}
