"""The settings of the process that posts webhooks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from maskq_worker.settings import WorkerSettings


class WebhookSettings(WorkerSettings):
    """What delivering needs besides the settings of any worker."""

    webhook_secret: SecretStr = SecretStr("")
    """Secret that signs webhooks, `whsec_…`; several, separated by spaces, during a rotation."""
    webhook_allowed_hosts: Annotated[frozenset[str], NoDecode] = frozenset()
    """Private receivers, also with plain http: `host` or `host:port`, comma-separated."""
    webhook_retries_s: Annotated[tuple[float, ...], NoDecode] = Field(
        default=(5, 300, 1800, 7200, 18_000, 36_000, 36_000)
    )
    """Seconds before each retry, comma-separated. After the last one the delivery has failed."""

    @field_validator("webhook_allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        return _parts(value) if isinstance(value, str) else value

    @field_validator("webhook_retries_s", mode="before")
    @classmethod
    def _split_retries(cls, value: object) -> object:
        return _parts(value) if isinstance(value, str) else value


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
