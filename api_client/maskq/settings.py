"""Settings: environment variables MASKQ_*, read once, frozen. A misspelled one is an error.

`Settings` is what client and worker share; `maskq_worker.settings.WorkerSettings` adds to it.
S3 credentials come by the AWS chain (environment, profile, instance role).
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from maskq.contract.webhooks import WebhookUrl
from maskq.errors import InvalidRequest

PREFIX = "MASKQ_"


def _no_edge_slashes(value: str) -> str:
    return value.strip("/")


class Settings(BaseSettings):
    """What client, worker and stack agree on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    redis_ca_file: Path | None = None  # PEM: who signs the certificate of a rediss:// server
    s3_endpoint_url: str | None = None  # None: AWS
    s3_bucket: str = "maskq"  # uploads and outputs
    output_prefix: Annotated[str, AfterValidator(_no_edge_slashes)] = "maskq"  # in s3_bucket
    key_prefix: str = Field(default="maskq", pattern=r"^[A-Za-z0-9_-]{1,64}$")  # of keys and queues
    model: str | None = None  # a hub id, a directory in the hub's layout, or `demo`
    max_queued: int = Field(default=100_000, ge=0)  # per model; 0: no limit
    max_queued_per_tenant: int = Field(default=0, ge=0)  # per model and tenant=; 0: no limit
    max_attempts: int = Field(default=3, ge=1)  # charged attempts, unless the request says
    queue_ttl_s: float = Field(default=86_400.0, gt=0)
    run_timeout_s: float = Field(default=600.0, gt=0)
    webhook_url: WebhookUrl | None = (
        None  # is told of the end of jobs that name no webhook themselves
    )
    retention_s: float = Field(default=7 * 86_400.0, gt=0)  # of ended records, idempotency keys
    output_retention_s: float = Field(default=0.0, ge=0)  # of outputs and uploads; 0: kept

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment. Raises InvalidRequest with one line per mistake."""
        refuse_unknown()
        try:
            return cls(**overrides)
        except ValidationError as error:
            raise InvalidRequest("; ".join(map(_mistake, error.errors()))) from None


def _mistake(error: ErrorDetails) -> str:
    name = ".".join(map(str, error["loc"]))
    # A URL may hold a password.
    got = "" if name.endswith("_url") else f" (got {error['input']!r})"
    return f"{PREFIX}{name.upper()}: {error['msg']}{got}"


# A client meets its worker's variables in a shared environment, and those of docker-compose.yml: known
# is not the same as used here.
KNOWN = set(Settings.model_fields) | {
    "model_revision", "device", "dtype", "backend", "max_batch_size", "concurrency", "lease_s",
    "forward_timeout_s", "max_score_bytes", "s3_client",
    "max_image_bytes", "max_image_pixels", "max_decoded_bytes", "allowed_buckets", "log_level",
    "health_file", "event_retention_s", "webhook_secret", "webhook_allowed_hosts",
    "webhook_retries_s", "stack_redis_server", "presigned_allowed_hosts", "trigger_rules",
    "trigger_tokens", "trigger_sns_topics", "trigger_queue_url", "sqs_endpoint_url",
    "image", "python_image", "torch", "torch_index", "redis_password", "redis_port",
    "s3_access_key", "s3_secret_key", "s3_port", "gateway_port",
}  # fmt: skip


def refuse_unknown() -> None:
    """A misspelled variable passes silently otherwise, and the default rules in its place."""
    for name in os.environ:
        if not name.startswith(PREFIX) or name.removeprefix(PREFIX).lower() in KNOWN:
            continue
        near = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), KNOWN, n=1)
        hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""
        raise InvalidRequest(f"{name} is not a setting of maskq{hint}")
