"""API keys: who may call the HTTP API, what a key allows, and how its text is made and read."""

from __future__ import annotations

import hashlib
import re
import secrets
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from maskq.contract.options import Tenant

_PREFIX: Final = "maskq"
_ID: Final = re.compile(r"[0-9a-z]{10}")
_ID_LETTERS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_TEXT: Final = re.compile(rf"{_PREFIX}_({_ID.pattern})_([\w-]{{20,200}})", re.ASCII)

LARGEST_RATE: Final = 1_000_000


class Scope(StrEnum):
    """What a key allows. Each stands for itself, but admin includes the others."""

    SUBMIT = "submit"  # submit, upload, cancel, retry, delete
    READ = "read"  # jobs, outputs, events, batches
    ADMIN = "admin"  # also what concerns the deployment: webhooks of all, models, scaling


KeyId = Annotated[str, Field(pattern=rf"^{_ID.pattern}$")]


class ApiKey(BaseModel):
    """What the deployment knows of a key. The key's text is not stored, only its SHA-256."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: KeyId  # the part of the key that is no secret
    name: str = Field(default="", max_length=200)  # for people
    scopes: frozenset[Scope] = Field(min_length=1)
    tenant: Tenant | None = None  # sees and submits this tenant's jobs only; None: all jobs
    requests_per_minute: int | None = Field(default=None, ge=1, le=LARGEST_RATE)  # None: no limit
    created_ms: int = 0  # since the epoch, by Redis' clock
    expires_ms: int | None = None  # None: never

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


class NewKey(NamedTuple):
    """A key that was just made. `text` is shown once: it cannot be read again."""

    key: ApiKey
    text: str


class Credentials(NamedTuple):
    """The two parts of a key's text."""

    id: str
    digest: str  # SHA-256 of the whole text, in hexadecimal

    @classmethod
    def new(cls) -> tuple[Credentials, str]:
        """The parts of a new random key, and its text."""
        key_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(10))
        text = f"{_PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
        return cls(key_id, _digest(text)), text

    @classmethod
    def parse(cls, text: str) -> Credentials | None:
        """The parts of a key as a caller shows it; None if it is not one."""
        found = _TEXT.fullmatch(text)
        return cls(found[1], _digest(text)) if found else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
