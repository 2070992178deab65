"""The call that lists the live workers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from maskq.contract.deployment.workers import Workers, WorkerState
from maskq.ledger.calls.base import Call, scripted
from maskq.ledger.records import pairs


def live_workers() -> Call[Workers]:
    """Every live worker, with what it last said of itself."""

    def parse(answer: Sequence[Any]) -> Workers:
        now_ms, *models = answer
        return Workers(
            now_ms=int(now_ms),
            workers=tuple(one for model in models for one in _of_model(int(now_ms), *model)),
        )

    return scripted("workers", parse)


def _of_model(
    now_ms: int, workers: Sequence[str], heartbeats: Sequence[str], away: Sequence[str]
) -> list[WorkerState]:
    beats = pairs(heartbeats)
    each = [_state(json.loads(text), beats, away, now_ms) for text in workers]
    return sorted(each, key=lambda one: (one.since_ms, one.owner))


def _state(
    worker: dict[str, Any], beats: dict[str, str], away: Sequence[str], now_ms: int
) -> WorkerState:
    owner = worker["owner"]
    at_ms, _, heartbeat = beats.get(owner, "").partition(" ")
    said: dict[str, Any] = {"store_away": owner in away}
    if heartbeat:
        age_s = max(0, now_ms - int(at_ms)) / 1000
        said |= {**json.loads(heartbeat), "last_beat_ms": int(at_ms), "beat_age_s": age_s}
    return WorkerState.model_validate(worker | said)
