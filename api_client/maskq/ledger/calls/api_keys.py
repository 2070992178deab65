"""Calls about API keys: create, check, list and revoke."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskq.contract.api_keys import ApiKey, Credentials, Scope
from maskq.ledger.calls.base import Call, scripted


def create(key: ApiKey, digest: str, expires_in_s: float | None) -> Call[ApiKey]:
    """Store a new key; returns it with its times, by Redis' clock."""
    about = key.model_dump_json(exclude={"created_ms", "expires_ms"}, exclude_none=True)
    left_ms = "" if expires_in_s is None else str(round(expires_in_s * 1000))

    def parse(answer: Sequence[str]) -> ApiKey:
        created_ms, expires_ms = answer
        return _with_times(key, created_ms, expires_ms)

    return scripted("api_key_create", parse, id=key.id, digest=digest, about=about, left_ms=left_ms)


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request with this key is admitted."""

    key: ApiKey | None  # None: unknown
    is_expired: bool = False
    used: int = 0  # requests with it in this minute, this one included
    resets_in_s: float = 0.0  # until the next minute begins

    @property
    def is_over_rate(self) -> bool:
        most = self.key.requests_per_minute if self.key else None
        return most is not None and self.used > most


def admit(shown: Credentials) -> Call[Admission]:
    """Count a request with this key, and return whether the key may be used."""

    def parse(answer: Sequence[Any]) -> Admission:
        if not answer:
            return Admission(None)
        state, about, created_ms, expires_ms, *counted = answer
        key = _with_times(_key(about), created_ms, expires_ms)
        if state == "expired":
            return Admission(key, is_expired=True)
        used, left_ms = counted
        return Admission(key, used=int(used), resets_in_s=int(left_ms) / 1000)

    return scripted("api_key_admit", parse, id=shown.id, digest=shown.digest)


def each() -> Call[list[ApiKey]]:
    """Every key, the oldest first; expired ones too."""

    def parse(answer: Sequence[Sequence[str]]) -> list[ApiKey]:
        return [_with_times(_key(about), *times) for about, *times in answer]

    return scripted("api_keys", parse)


def revoke(key_id: str) -> Call[bool]:
    """Delete a key. False: there is none with this id."""
    return scripted("api_key_revoke", bool, id=key_id)


def _key(about: str) -> ApiKey:
    """A stored key. Scopes that this version does not know are ignored; they allow nothing."""
    document = json.loads(about)
    known = frozenset(scope for scope in Scope if scope in document["scopes"])
    key = ApiKey.model_validate({**document, "scopes": [*Scope]})
    return key.model_copy(update={"scopes": known})


def _with_times(key: ApiKey, created_ms: str, expires_ms: str) -> ApiKey:
    times = {
        "created_ms": int(created_ms),
        "expires_ms": int(expires_ms) if expires_ms else None,
    }
    return key.model_copy(update=times)
