"""The pages that are made from the contract: outputs, errors, events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel
from tools.reference.docstrings import Undescribed, describe
from tools.reference.markdown import code, page, table

from maskq import errors as exceptions
from maskq.contract import FailureCode, JobStatus
from maskq.contract.events import (
    BATCH_COMPLETED,
    EVENT_DATA,
    BatchEventData,
    Event,
    JobEventData,
    job_event,
)
from maskq.contract.jobs import ClassStats, Manifest
from maskq.contract.options import Mode
from maskq.contract.outputs import FILES

_BATCH = "Every job of the batch has ended."


def outputs() -> str:
    return page(
        "Outputs",
        'A job names its outputs: `submit(image, outputs={"mask", "stats"})`. '
        "One forward serves all of them. [masks.md](../masks.md) says how to read each file.",
        table(("output", "file", "content type", ""), _outputs()),
        "## Modes",
        "`mode=` says how the network looks at the image.",
        table(("mode", ""), ((code(one.value), describe(Mode, one.name)) for one in Mode)),
        "## result.json",
        "The manifest of a succeeded job. A record's `result` and an event's `data.result` have "
        "these fields except the last seven.",
        table(("field", ""), _fields(Manifest)),
        "Each entry of `stats`:",
        table(("field", ""), _fields(ClassStats)),
    )


def _outputs() -> Iterator[tuple[str, ...]]:
    for one, files in FILES.items():
        yield code(one.value), code(files.name), code(files.content_type), files.meaning


def errors() -> str:
    return page(
        "Errors",
        "Every error has a stable code. A failed job has it in `record.error.code`, an exception "
        "in `.code`, an answer of the HTTP API in `code`, and a Celery caller's `SegmentRefused` "
        "in front of its text. The message beside the code names the input and is for people: do "
        "not branch on it.",
        table(("code", "meaning", "what to do"), _codes()),
        "## Exceptions",
        "All derive from `MaskqError`.",
        table(("exception", "code", "raised"), _exceptions()),
        "[The HTTP API's statuses](../http.md#errors) and [S3's "
        "answers](../operations.md#what-s3s-answers-mean) have tables of their own.",
    )


def _codes() -> Iterator[tuple[str, ...]]:
    for one in FailureCode:
        meaning, _, action = describe(FailureCode, one.name).partition("\n\n")
        if not action:
            raise Undescribed(f"FailureCode.{one.name}: say what to do in a second paragraph")
        yield code(one.value), meaning, action


def _exceptions() -> Iterator[tuple[str, ...]]:
    for found in vars(exceptions).values():
        if isinstance(found, type) and issubclass(found, exceptions.MaskqError):
            its_own = "code" in vars(found) or found.code is not FailureCode.INTERNAL
            kind = code(found.code.value) if its_own else "of the job or message"
            doc = (found.__doc__ or "").partition("\n\n")[0]
            yield code(found.__name__), kind, doc


def events() -> str:
    return page(
        "Events",
        "Each state of a job or batch is one CloudEvent 1.0, on the stream, in webhooks and over "
        "HTTP alike. [webhooks-and-events.md](../webhooks-and-events.md) says how to receive "
        "them, [asyncapi.json](../asyncapi.json) is the schema.",
        table(("type", "data", ""), _events()),
        "## Envelope",
        table(("field", ""), _fields(Event)),
        "## data of a job's event",
        table(("field", ""), _fields(JobEventData)),
        "## data of a batch's event",
        table(("field", ""), _fields(BatchEventData)),
    )


def _events() -> Iterator[tuple[str, ...]]:
    meanings: Mapping[str, str] = {
        **{job_event(one): describe(JobStatus, one.name) for one in JobStatus},
        BATCH_COMPLETED: _BATCH,
    }
    for kind, data in EVENT_DATA.items():
        yield code(kind), code(data.__name__), meanings[kind]


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        if not field.exclude:
            yield code(name), describe(model, name)
