"""API keys of the HTTP API: their scopes, and how the text of a key is made and read."""

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
    """What a key allows. admin includes the other scopes; the others are independent."""

    SUBMIT = "submit"  # submit, upload, cancel, retry, delete
    READ = "read"  # jobs, outputs, events, batches
    ADMIN = "admin"  # also the whole deployment: all webhooks, models, scaling


KeyId = Annotated[str, Field(pattern=rf"^{_ID.pattern}$")]


class ApiKey(BaseModel):
    """A key as the deployment keeps it. Only the SHA-256 of its text is stored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: KeyId  # the public part of the key
    name: str = Field(default="", max_length=200)  # for people
    scopes: frozenset[Scope] = Field(min_length=1)
    tenant: Tenant | None = None  # sees and submits this tenant's jobs only; None: all jobs
    requests_per_minute: int | None = Field(default=None, ge=1, le=LARGEST_RATE)  # None: no limit
    created_ms: int = 0  # since the epoch, by Redis' clock
    expires_ms: int | None = None  # None: never

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


class NewKey(NamedTuple):
    """A new key. `text` is shown once and cannot be read again."""

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
        """The parts of the text of a key; None if it is not a valid key."""
        found = _TEXT.fullmatch(text)
        return cls(found[1], _digest(text)) if found else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
