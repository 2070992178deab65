"""Calls about models: who serves what, which one is the default, and how one is forgotten."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from maskq.contract.deployment.workers import Heartbeat
from maskq.contract.models import DefaultModel, ModelChoice, ServedModel, ServingWorker
from maskq.ledger import keys
from maskq.ledger.calls.base import Call, scripted
from maskq.ledger.calls.submission import Limits, Submitted, model_choosers

REGISTER_EVERY_S: Final = 10.0
LIVE_S: Final = (
    50.0  # a worker that did not register for so long counts as gone (four registrations lost)
)
_IDLE: Final = Heartbeat(in_hand=0, jobs_per_s=0.0)


def register(
    worker: ServingWorker,
    classes: Sequence[str] = (),
    palette: Sequence[str] = (),
    heartbeat: Heartbeat = _IDLE,
) -> Call[list[ServingWorker]]:
    """Register a worker of a model, every REGISTER_EVERY_S. The model stays known for good.

    classes: their labels, by id. palette: their colours, `#rrggbb`. heartbeat: what the worker does
    now. Returns live workers that serve another revision under the same name.
    """
    about = {
        "revision": worker.revision,
        "labels": worker.labels,
        "backend": worker.backend,
        "classes": list(classes),
        "palette": list(palette),
    }
    same = f'"revision":{json.dumps(worker.revision, ensure_ascii=False)},'
    return scripted(
        "register",
        lambda answer: [*map(_worker, answer)],
        model=worker.model,
        about=json.dumps(about),
        worker=worker.model_dump_json(),
        live_ms=round(LIVE_S * 1000),
        same=same,
        owner=worker.owner,
        heartbeat=heartbeat.model_dump_json(),
    )


def leave(worker: ServingWorker) -> Call[None]:
    """Remove a worker. Its model stays known."""
    return scripted(
        "leave",
        lambda _: None,
        model=worker.model,
        worker=worker.model_dump_json(),
        owner=worker.owner,
    )


def register_model(name: str, about: Mapping[str, object]) -> Call[None]:
    """Make a model known without a live worker."""
    args = ("HSET", keys.models(), name, json.dumps(about))
    return Call(None, args, lambda _: None)


@dataclass(frozen=True, slots=True)
class Known:
    each: tuple[ServedModel, ...]  # by name
    default: DefaultModel


def known(limits: Limits) -> Call[Known]:
    """Every known model, and the model of requests that name none."""

    def parse(answer: Sequence[Any]) -> Known:
        default, choice, *rows = answer
        each = tuple(_served(row, default) for row in rows)
        is_known = any(one.default for one in each)
        return Known(
            each, DefaultModel(name=default or None, choice=ModelChoice(choice), known=is_known)
        )

    return scripted("models", parse, choosers=model_choosers(limits))


def _served(row: Sequence[str], default: str) -> ServedModel:
    name, about, queued, *workers = row
    each = sorted(map(_worker, workers), key=lambda one: (one.since_ms, one.owner))
    known = json.loads(about)
    return ServedModel(
        name=name,
        revision=known.get("revision"),
        labels=known.get("classes", ()),
        palette=known.get("palette", ()),
        workers=tuple(each),
        queued=int(queued),
        default=name == default,
    )


def _worker(text: str) -> ServingWorker:
    return ServingWorker.model_validate_json(text)


def set_default(model: str | None) -> Call[tuple[str, ...] | None]:
    """Store the default model (None: remove it). Returns the known models if it is unknown."""

    def parse(answer: Sequence[str]) -> tuple[str, ...] | None:
        return tuple(answer[1:]) if answer[0] == "unknown" else None

    return scripted("model_default", parse, model=model or "")


@dataclass(frozen=True, slots=True)
class Retired:
    """The result of a retirement. Without `force`, nothing changes while the model is in use."""

    retired: bool
    workers: int = 0  # alive
    queued: int = 0  # jobs
    running: int = 0
    is_default: bool = False
    known: tuple[str, ...] | None = None  # the models there are, if this one is not known


def retire(model: str, *, force: bool = False) -> Call[Retired]:
    """Forget a model. `force`: even if it is in use; call cancel_queued afterwards."""

    def parse(answer: Sequence[str]) -> Retired:
        if answer[0] == "unknown":
            return Retired(False, known=tuple(answer[1:]))
        workers, queued, running, is_default = map(int, answer[1:])
        return Retired(answer[0] == "retired", workers, queued, running, bool(is_default))

    return scripted("model_retire", parse, model=model, force=int(force))


def cancel_queued(model: str, *, offset: int = 0, cap: int = 200) -> Call[tuple[int, int | None]]:
    """Cancel queued jobs of a retired model; returns how many, and the next offset or None."""

    def parse(answer: Sequence[int]) -> tuple[int, int | None]:
        canceled, rest = answer
        return canceled, None if rest < 0 else rest

    return scripted("model_cancel", parse, model=model, cap=cap, offset=offset)


def unknown(model: str | None, known: Sequence[str]) -> str:
    """The text of an error about an unknown model."""
    if not known:
        return "no worker has served any model here yet; start one with `maskq worker`"
    near = difflib.get_close_matches(model or "", known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return (
        f"model {model!r} is not known here (no worker has served it, or it was retired); "
        f"known are: {', '.join(known)}{hint}"
    )


def unknown_model(refused: Submitted) -> str:
    """The text of an error for a refused submission: why, and what to do."""
    if refused.choice is ModelChoice.REQUEST or not refused.known:
        return unknown(refused.model, refused.known)
    if refused.choice is ModelChoice.NOBODY:
        return (
            f"several models are served and the request names none: choose one with model= "
            f"({', '.join(refused.known)}), or set a default for all requests: "
            f"`maskq models default NAME`, or MASKQ_DEFAULT_MODEL"
        )
    stored = refused.choice is ModelChoice.STORED
    source = "`maskq models default`" if stored else "MASKQ_DEFAULT_MODEL"
    return (
        f"the request names no model, and of the default by {source}: "
        f"{unknown(refused.model, refused.known)}; name one with model=, or change the default"
    )
