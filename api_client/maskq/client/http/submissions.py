"""Submitting images through the gateway, one at a time or many."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar

from maskq.client.bulk import Bulk, SubmitOptions, TakenImage
from maskq.client.http import documents
from maskq.client.http.asking import Gateway
from maskq.client.http.uploads import Uploads
from maskq.client.image_source import ImageSource, given_name, is_reference, read_image
from maskq.client.operations.flow import Flow, Together
from maskq.client.sending import QueueFullBackoff
from maskq.contract import FailureCode
from maskq.contract.ids import new_id
from maskq.contract.options import Options
from maskq.contract.tracing import TraceContext
from maskq.errors import InvalidRequest, MaskqError, QueueFull, StoreUnavailable, UnknownModel
from maskq.http.request import Form, Request

JobT = TypeVar("JobT")

_KEY: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,198}[\x21-\x7e])?")
_UPLOAD_S: Final = 120.0  # for the gateway to take an image
_LARGEST_JSON: Final = 900_000  # bytes of URIs in one request; the gateway takes a mebibyte
_MOST: Final = 500  # jobs in one request


class Submissions:
    """Submits single images."""

    def __init__(self, gateway: Gateway, uploads: Uploads) -> None:
        self._gateway = gateway
        self._uploads = uploads

    def submit(
        self,
        image: ImageSource,
        options: Options,
        *,
        idempotency_key: str | None,
        durable: bool,
        queue_full_timeout: float | None,
        trace: TraceContext | None,
    ) -> Flow[str]:
        """Returns the job's id."""
        if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
            raise InvalidRequest(
                f"idempotency_key {idempotency_key!r:.100} cannot be sent over HTTP: give 1 to 200 "
                f"visible ASCII characters"
            )
        # Without a key of the caller's one of our own: the request may be sent twice.
        headers = {"Idempotency-Key": idempotency_key or f"once:{new_id()}", **_headers(trace)}
        request = self._request(image, options, headers, durable)
        if request.form and (yield from self._uploads.needs_one(request.form)):
            upload_id = yield from self._uploads.begin(request.form)
            asked = {**documents.asked(options), "upload_id": upload_id}
            asked["filename"] = request.form.file_name
            del asked["image_uri"]
            request = replace(request, form=None, document=asked)
        backoff = QueueFullBackoff(queue_full_timeout)
        while True:
            try:
                answer = yield from self._gateway.ask(request)
                return self._gateway.parsed(answer, lambda document: str(document["id"]))
            except QueueFull:
                if backoff.time_is_up:
                    raise
                yield backoff.wait()

    def _request(
        self, image: ImageSource, options: Options, headers: dict[str, str], durable: bool
    ) -> Request:
        query = (("durable", "true"),) if durable else ()
        if is_reference(image):
            document = documents.asked(options, str(image))
            return Request(
                method="POST", path="/v1/jobs", query=query, headers=headers, document=document
            )
        return Request(
            method="POST",
            path="/v1/jobs",
            query=query,
            headers=headers,
            form=form(image, documents.asked(options)),
            timeout_s=_UPLOAD_S,
        )


def form(image: ImageSource, asked: dict[str, Any], **more: str) -> Form:
    """A form of an image and the fields of its request. Raises InvalidRequest."""
    body, content_type = read_image(image)
    fields = {name: _text(value) for name, value in asked.items() if name != "image_uri"}
    return Form(body, content_type, fields | more, given_name(image))


def _headers(trace: TraceContext | None) -> dict[str, str]:
    return trace.headers() if trace else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class HttpBulk(Bulk[JobT], Generic[JobT]):
    """Submits references by hundreds in a request, and other images one by one, eight at a time."""

    def __init__(
        self,
        gateway: Gateway,
        uploads: Uploads,
        job: Callable[[str], JobT],
        submit_options: SubmitOptions,
        options: Options,
    ) -> None:
        """Raises InvalidRequest for an invalid option."""
        super().__init__(job, submit_options)
        self._gateway = gateway
        self._uploads = uploads
        self._asked = documents.asked(options)
        del self._asked["image_uri"]
        if "/" in submit_options.batch.batch_id:
            raise InvalidRequest("a run_id cannot hold '/' over HTTP; choose another name")

    def submit_taken(self, trace: TraceContext | None) -> Flow[None]:
        uploads = [[one] for one in self.taken if not is_reference(one.image)]
        groups = [*uploads, *_groups([one for one in self.taken if is_reference(one.image)])]
        answers = yield Together([self._submitted(group, trace) for group in groups])
        kept: list[TakenImage] = []
        raised: MaskqError | None = None
        accepted = 0
        for group, answer in zip(groups, answers, strict=True):
            if isinstance(answer, Exception) and not isinstance(answer, MaskqError):
                raise answer
            outcomes = [answer] * len(group) if isinstance(answer, MaskqError) else answer
            for one, outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, UnknownModel) or _is_outage(outcome):
                    raised = outcome
                    kept.append(one)
                elif isinstance(outcome, QueueFull) and not self.backoff.time_is_up:
                    kept.append(one)
                else:
                    accepted += isinstance(outcome, str)
                    self.add_outcome(one.number, one.image, outcome)
        self.taken = sorted(kept, key=lambda one: one.number)
        if raised:
            raise raised
        if accepted:
            self.backoff.found(for_all=not kept)
        if kept:
            self.held_up = "the queue is full"
            yield self.backoff.wait()

    def _submitted(
        self, group: Sequence[TakenImage], trace: TraceContext | None
    ) -> Flow[Sequence[str | MaskqError]]:
        """The outcome of each image: all are sent in one request."""
        joins = {
            "batch_id": self.options.batch.batch_id,
            "total": self.options.batch.total,
            "durable": self.options.durable,
            "idempotency_keys": [self._key(one) for one in group],
            "retry_of": [one.retry_of for one in group],
        }
        if self.options.batch.webhook:
            joins["webhook"] = self.options.batch.webhook
        if is_reference(group[0].image):
            uris = [documents.checked_uri(str(one.image)) for one in group]
            refused = {n: uri for n, uri in enumerate(uris) if isinstance(uri, InvalidRequest)}
            if refused:
                return (yield from self._without(group, refused, trace))
            request = Request(
                method="POST",
                path="/v1/batches",
                document=joins | {"image_uris": uris, "options": self._asked},
                timeout_s=_UPLOAD_S,
            )
        else:
            made = form(group[0].image, self._asked, batch=json.dumps(joins))
            request = Request(method="POST", path="/v1/batches", form=made, timeout_s=_UPLOAD_S)
            if (yield from self._uploads.needs_one(made)):
                upload_id = yield from self._uploads.begin(made)
                named = {"upload_ids": [upload_id], "filenames": [made.file_name]}
                document = joins | named | {"options": self._asked}
                request = replace(request, form=None, document=document)
        answer = yield from self._gateway.ask(replace(request, headers=_headers(trace)))
        return self._gateway.parsed(answer, lambda document: _outcomes(document, len(group)))

    def _without(
        self, group: Sequence[TakenImage], refused: dict[int, Any], trace: TraceContext | None
    ) -> Flow[Sequence[str | MaskqError]]:
        """The outcomes of a group of which some images are not valid references."""
        rest = [one for number, one in enumerate(group) if number not in refused]
        outcomes = iter((yield from self._submitted(rest, trace)) if rest else ())
        return [refused[n] if n in refused else next(outcomes) for n in range(len(group))]

    def _key(self, one: TakenImage) -> str:
        return one.key or f"{self.options.batch.batch_id}:{one.number}"


def _is_outage(outcome: str | MaskqError) -> bool:
    return isinstance(outcome, StoreUnavailable) and outcome.code in (
        FailureCode.STORE_UNAVAILABLE,
        FailureCode.RATE_LIMITED,
    )


def _outcomes(document: dict[str, Any], count: int) -> Sequence[str | MaskqError]:
    outcomes = [documents.outcome(one) for one in document["outcomes"]]
    if len(outcomes) != count:
        raise ValueError("not an outcome for each image")
    return outcomes


def _groups(taken: Sequence[TakenImage]) -> Sequence[Sequence[TakenImage]]:
    """The references in groups of one request each."""
    groups: list[list[TakenImage]] = []
    size = 0
    for one in taken:
        size += len(str(one.image)) + 100
        if not groups or size > _LARGEST_JSON or len(groups[-1]) == _MOST:
            groups.append([])
            size = len(str(one.image)) + 100
        groups[-1].append(one)
    return groups
