"""Requests of callers: their validation, their fingerprints, and the errors of a refused submission."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from maskq.contract import JobRecord, SegmentRequest
from maskq.contract.locations import S3Uri, redact
from maskq.contract.options import BY_KEYWORD, Options
from maskq.contract.statuses import RETRYABLE, either
from maskq.contract.webhooks import WebhookUrl
from maskq.errors import (
    IdempotencyConflict,
    InvalidRequest,
    QueueFull,
    SubmitRateExceeded,
    UnknownModel,
)
from maskq.ledger.calls import SubmitOutcome, Submitted, models
from maskq.validation import sentence


def build(image_uri: str, options: Options) -> SegmentRequest:
    fields = {
        BY_KEYWORD[keyword].name if keyword in BY_KEYWORD else keyword: value
        for keyword, value in options.items()
    }
    return _checked({**fields, "image_uri": image_uri})


class Requests:
    """Makes requests that differ only in their image: the options are checked once."""

    def __init__(self, options: Options) -> None:
        """Raises InvalidRequest for an option that is not valid."""
        self._any = build("s3://bucket/key", options)
        self._rest = _rest(self._any)

    @property
    def model(self) -> str | None:
        return self._any.model

    @property
    def tenant(self) -> str | None:
        return self._any.tenant

    def of(self, image_uri: str) -> SegmentRequest:
        """The request for one image. Raises InvalidRequest if it is not an S3 URI or http(s) URL."""
        if self._any.output_name is not None:  # names of copies depend on the image's
            return _checked({**dict(self._any), "image_uri": image_uri})
        try:
            S3Uri.parse(image_uri)
        except ValueError:  # a URL, which needs all checks of a request, or not valid
            return _checked({**dict(self._any), "image_uri": image_uri})
        return self._any.model_copy(update={"image_uri": image_uri})

    def fingerprint(self, request: SegmentRequest, upload: tuple[bytes, str] | None) -> str:
        """The fingerprint of one of these requests, as the function `fingerprint` computes it."""
        return _digest(upload, shown_place(request.image_uri), self._rest)

    def options(self) -> dict[str, Any]:
        """The options as plain JSON values, without defaults."""
        return self._any.redacted().model_dump(
            mode="json", exclude={"image_uri"}, exclude_defaults=True
        )


def _checked(fields: Mapping[str, object]) -> SegmentRequest:
    try:
        return SegmentRequest.model_validate(fields)
    except ValidationError as error:
        keywords = {option.name: option.keyword for option in BY_KEYWORD.values()}
        raise InvalidRequest(sentence(error, keywords)) from None


def shown_place(image_uri: str) -> str:
    """The image's URI without the secret of a presigned URL."""
    return image_uri if image_uri.startswith("s3://") else redact(image_uri)


def check_webhook(url: str) -> None:
    """Raises InvalidRequest if it is not the URL of a receiver."""
    try:
        TypeAdapter(WebhookUrl).validate_python(url)
    except ValidationError as error:
        raise InvalidRequest(f"batch_webhook: {error.errors()[0]['msg']}") from None


def fingerprint(request: SegmentRequest, upload: tuple[bytes, str] | None) -> str:
    """A digest that is equal for equal requests: of the options, and of the image's bytes or URI."""
    return _digest(upload, shown_place(request.image_uri), _rest(request))


def fingerprint_of_uploaded(request: SegmentRequest, etag: str) -> str:
    """The fingerprint where the image lies in the store already: of its ETag in place of its bytes."""
    return _digest(None, f"etag {etag}", _rest(request))


def _rest(request: SegmentRequest) -> str:
    # Without the secrets of presigned URLs: signed anew, they name the same object. Without defaults:
    # a field that a later version adds does not make an old key a conflict.
    return request.redacted().model_dump_json(exclude={"image_uri"}, exclude_defaults=True)


def _digest(upload: tuple[bytes, str] | None, place: str, rest: str) -> str:
    source = hashlib.sha256(upload[0]).hexdigest() if upload else place
    return hashlib.sha256(f"{source} {rest}".encode()).hexdigest()


def refuse(answer: Submitted, request: SegmentRequest, idempotency_key: str | None) -> None:
    """Raise the error of a submission that was not accepted."""
    match answer.outcome:
        case SubmitOutcome.FULL:
            raise QueueFull("as many jobs as MASKQ_MAX_QUEUED wait already; submit again later")
        case SubmitOutcome.TENANT_FULL:
            raise QueueFull(
                f"as many jobs of tenant {request.tenant!r} wait as it may have "
                f"(`maskq tenants show`, MASKQ_MAX_QUEUED_PER_TENANT); submit again later"
            )
        case SubmitOutcome.RATE_EXCEEDED:
            raise SubmitRateExceeded(
                f"tenant {request.tenant!r} may submit {answer.submit_rate} jobs a minute; submit "
                f"again in {answer.retry_after_s:.1f} s",
                answer.retry_after_s,
            )
        case SubmitOutcome.CONFLICT:
            raise IdempotencyConflict(
                f"idempotency key {idempotency_key!r} was used for another request, "
                f"job {answer.job_id}; take a new key"
            )
        case SubmitOutcome.UNKNOWN_MODEL:
            raise UnknownModel(models.unknown_model(answer))


def check_retry(record: JobRecord) -> None:
    """Raises InvalidRequest if the job cannot be submitted again from its record."""
    if record.status not in RETRYABLE:
        raise InvalidRequest(
            f"job {record.id} is {record.status.value}; only a job that is {either(RETRYABLE)} can be "
            f"retried"
        )
    if record.request.incomplete:
        raise InvalidRequest(
            f"the presigned URLs of job {record.id} were deleted when it ended; submit the image "
            f"again with new URLs"
        )
