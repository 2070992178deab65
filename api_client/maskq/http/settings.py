"""The settings of a client that calls the gateway."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import SecretStr, field_validator
from pydantic_settings import NoDecode

from maskq.settings import Settings


class HttpSettings(Settings):
    """Where the gateway is, and the API key."""

    gateway_url: str | None = None
    """URL of the gateway. Clients call it if MASKQ_REDIS_URL is not set. `maskq up --env-file` writes
    it.
    """
    api_key: SecretStr | None = None
    """API key for the gateway, as `maskq keys create` prints it. `maskq up --env-file` writes it."""
    transport: Literal["direct", "http"] | None = None
    """How a client reaches the deployment: `direct` (Redis and S3) or `http` (the gateway). Default:
    direct if MASKQ_REDIS_URL is set or MASKQ_GATEWAY_URL is not.
    """
    gateway_plain_http_hosts: Annotated[frozenset[str], NoDecode] = frozenset()
    """Hosts whose gateway a client calls by plain http, comma-separated. The API key crosses that
    network in clear text. Loopback addresses are always allowed.
    """

    @field_validator("gateway_plain_http_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return frozenset(part.strip() for part in value.split(",") if part.strip())
