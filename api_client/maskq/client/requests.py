"""From what a caller asks to what the ledger takes: options, mistakes, fingerprints, refusals."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, TypedDict

from pydantic import TypeAdapter, ValidationError

from maskq.contract import Output, Priority, SegmentRequest
from maskq.contract.locations import S3Uri, redact
from maskq.contract.validation import sentence
from maskq.contract.webhooks import WebhookUrl
from maskq.errors import IdempotencyConflict, InvalidRequest, QueueFull, UnknownModel
from maskq.ledger.calls import SubmitOutcome, Submitted, models


class Options(TypedDict, total=False):
    """What may be asked for beside the image; SegmentRequest says what each means."""

    image_version_id: str | None
    image_etag: str | None
    model: str | None
    outputs: set[str] | frozenset[str] | Iterable[Output]
    classes: set[str] | frozenset[str] | list[str] | None
    overlay_alpha: float | None
    overlay_legend: bool
    mode: str
    priority: Priority | str
    tenant: str | None
    output_prefix: str | None
    output_urls: dict[str, str]
    metadata: dict[str, str]
    webhook: str | None
    webhook_events: Iterable[str]
    queue_ttl: float | None
    run_timeout: float | None
    max_attempts: int | None


_RENAMED = {"queue_ttl": "queue_ttl_s", "run_timeout": "run_timeout_s"}


def _default(option: str) -> Any:
    field = SegmentRequest.model_fields[_RENAMED.get(option, option)]
    match field.get_default(call_default_factory=True):
        case StrEnum() as value:
            return value.value
        case frozenset() as values:
            return frozenset(map(str, values))
        case value:
            return value


# What an option is that is not given, as a caller would write it: for signatures.
OPTION_DEFAULTS = {option: _default(option) for option in Options.__annotations__}


def build(image_uri: str, options: Options) -> SegmentRequest:
    fields = {_RENAMED.get(name, name): value for name, value in options.items()}
    return _checked({**fields, "image_uri": image_uri})


class Requests:
    """Requests that differ in their image alone: their options are checked once."""

    def __init__(self, options: Options) -> None:
        """Raises InvalidRequest for an option that is wrong."""
        self._any = build("s3://bucket/key", options)
        self._rest = _rest(self._any)

    @property
    def tenant(self) -> str | None:
        return self._any.tenant

    def of(self, image_uri: str) -> SegmentRequest:
        """Raises InvalidRequest for what is no place of an image."""
        try:
            S3Uri.parse(image_uri)
        except ValueError:  # a URL, for which other rules hold, or nothing: `_checked` knows
            return _checked({**dict(self._any), "image_uri": image_uri})
        return self._any.model_copy(update={"image_uri": image_uri})

    def fingerprint(self, request: SegmentRequest, upload: tuple[bytes, str] | None) -> str:
        """The function `fingerprint`, for one of these."""
        return _digest(upload, shown_place(request.image_uri), self._rest)

    def options(self) -> dict[str, Any]:
        """What was asked for beside the image, as plain JSON values, without defaults."""
        return self._any.redacted().model_dump(
            mode="json", exclude={"image_uri"}, exclude_defaults=True
        )


def _checked(fields: Mapping[str, object]) -> SegmentRequest:
    try:
        return SegmentRequest.model_validate(fields)
    except ValidationError as error:
        names = {value: name for name, value in _RENAMED.items()}
        raise InvalidRequest(sentence(error, names)) from None


def shown_place(image_uri: str) -> str:
    """Without the secret of a presigned URL."""
    return image_uri if image_uri.startswith("s3://") else redact(image_uri)


def check_webhook(url: str) -> None:
    """Raises InvalidRequest for what is no URL of a receiver."""
    try:
        TypeAdapter(WebhookUrl).validate_python(url)
    except ValidationError as error:
        raise InvalidRequest(f"batch_webhook: {error.errors()[0]['msg']}") from None


def fingerprint(request: SegmentRequest, upload: tuple[bytes, str] | None) -> str:
    """What makes two requests the same: the options, and the image's bytes or its place."""
    return _digest(upload, shown_place(request.image_uri), _rest(request))


def _rest(request: SegmentRequest) -> str:
    # Without the secrets of presigned URLs: signed anew, they name the same object. Without defaults:
    # a field that a later version adds does not make an old key a conflict.
    return request.redacted().model_dump_json(exclude={"image_uri"}, exclude_defaults=True)


def _digest(upload: tuple[bytes, str] | None, place: str, rest: str) -> str:
    source = hashlib.sha256(upload[0]).hexdigest() if upload else place
    return hashlib.sha256(f"{source} {rest}".encode()).hexdigest()


def refuse(answer: Submitted, request: SegmentRequest, idempotency_key: str | None) -> None:
    """Raise what a submission that was not accepted means for its caller."""
    match answer.outcome:
        case SubmitOutcome.FULL:
            raise QueueFull("as many jobs as MASKQ_MAX_QUEUED wait already; submit again later")
        case SubmitOutcome.TENANT_FULL:
            raise QueueFull(
                f"as many jobs of tenant {request.tenant!r} wait as it may have "
                f"(MASKQ_MAX_QUEUED_PER_TENANT); submit again later"
            )
        case SubmitOutcome.CONFLICT:
            raise IdempotencyConflict(
                f"idempotency key {idempotency_key!r} was used for another request, "
                f"job {answer.job_id}; take a new key"
            )
        case SubmitOutcome.UNKNOWN_MODEL:
            raise UnknownModel(models.unknown_model(answer))
