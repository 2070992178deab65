"""What the gateway reads from the environment beyond what it shares with the client."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from maskq.contract.locations import S3Uri
from maskq.errors import InvalidRequest
from maskq.telemetry.settings import TelemetrySettings
from maskq_gateway.rules.rule import Rules

_SHORTEST_TOKEN = 16


class GatewaySettings(TelemetrySettings):
    """Who may notify, by which way, and what that starts."""

    trigger_rules: Path | None = None
    """TOML file that says which uploads start which jobs (docs/triggers.md)."""
    trigger_tokens: SecretStr = SecretStr("")
    """Tokens of senders of notifications, comma-separated; each has 16 characters or more."""
    trigger_sns_topics: Annotated[frozenset[str], NoDecode] = frozenset()
    """ARNs of topics whose signed messages are accepted, comma-separated."""
    trigger_queue_url: str | None = None
    """URL of the SQS queue that `maskq trigger sqs` reads."""
    sqs_endpoint_url: str | None = None
    """URL of the SQS server. Default: AWS."""
    gateway_max_upload_bytes: int = Field(default=32 * 2**20, ge=1)
    """Bytes an image sent over HTTP may have."""
    gateway_max_presigned_bytes: int = Field(default=64 * 2**20, ge=1)
    """Bytes an image uploaded by a presigned URL may have. Set it to the workers'
    MASKQ_MAX_IMAGE_BYTES: they refuse larger images.
    """
    gateway_outputs: Literal["redirect", "stream"] = "redirect"
    """How the gateway answers outputs: with a presigned URL of the store, or with the bytes."""
    s3_public_endpoint_url: str | None = None
    """URL by which callers of the HTTP API reach the store. Default: MASKQ_S3_ENDPOINT_URL."""
    cors_origins: Annotated[frozenset[str], NoDecode] = frozenset()
    """Origins of web pages that may call the API, comma-separated: `https://example.com`."""
    gateway_tls_certificate: Path | None = None
    """PEM file of the certificate chain with which the gateway serves HTTPS. Default: HTTP."""
    gateway_tls_key: Path | None = None
    """PEM file of the certificate's private key."""
    trusted_proxies: Annotated[frozenset[str], NoDecode] = frozenset()
    """Reverse proxies whose X-Forwarded headers are used: addresses and networks, comma-separated."""
    gateway_root_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = ""
    """Path below which a reverse proxy serves the gateway, and which it strips: `/masks`."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level that is logged."""
    health_file: Path | None = None
    """File that the process touches every second while it is well."""

    @field_validator("trigger_sns_topics", "cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return frozenset(_parts(value)) if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: frozenset[str]) -> frozenset[str]:
        for one in value:
            ipaddress.ip_network(one)  # its ValueError names what is wrong
        return value

    @field_validator("trigger_tokens")
    @classmethod
    def _refuse_short(cls, value: SecretStr) -> SecretStr:
        if any(len(token) < _SHORTEST_TOKEN for token in _parts(value.get_secret_value())):
            raise ValueError(
                f"a token has fewer than {_SHORTEST_TOKEN} characters and can be guessed; "
                f"`openssl rand -hex 16` makes one"
            )
        return value

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple(_parts(self.trigger_tokens.get_secret_value()))

    def refuse_half_of_tls(self) -> None:
        """Raise InvalidRequest for a certificate without its key, or a key without its certificate."""
        if (self.gateway_tls_certificate is None) != (self.gateway_tls_key is None):
            raise InvalidRequest(
                "set both MASKQ_GATEWAY_TLS_CERTIFICATE and MASKQ_GATEWAY_TLS_KEY, or neither"
            )

    def rules(self, path: Path | None = None) -> Rules:
        """The rules of `path`, or of MASKQ_TRIGGER_RULES. Raises InvalidRequest."""
        path = path or self.trigger_rules
        if path is None:
            raise InvalidRequest(
                "there are no rules: set MASKQ_TRIGGER_RULES to a TOML file, or give --rules"
            )
        return Rules.load(path, own_output=S3Uri(self.s3_bucket, self.output_prefix))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
