"""Settings: environment variables MASKQ_*, read once and frozen. A misspelled name is an error.

A variable NAME can also be given as a file: MASKQ_REDIS_URL_FILE=/run/secrets/redis-url.

Client and worker share `Settings`; `maskq_worker.settings.WorkerSettings` adds the worker's own. boto3
finds the S3 credentials (environment, profile, instance role).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from maskq import environment
from maskq.contract.models import ModelName
from maskq.contract.webhooks import WebhookUrl
from maskq.environment import PREFIX, SUFFIX
from maskq.errors import InvalidRequest

__all__ = ["KNOWN", "PREFIX", "Settings", "refuse_unknown", "usable"]


def _no_edge_slashes(value: str) -> str:
    return value.strip("/")


class Settings(BaseSettings):
    """The settings that client, worker, gateway and stack share."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    redis_ca_file: Path | None = None  # PEM: the CA of a rediss:// server's certificate
    s3_endpoint_url: str | None = None  # None: AWS
    # Where S3 requests name the bucket: in the path, in the host name (virtual), or as boto3 chooses.
    s3_addressing: Literal["path", "virtual", "auto"] = "path"
    s3_bucket: str = "maskq"  # uploads and outputs
    output_prefix: Annotated[str, AfterValidator(_no_edge_slashes)] = "maskq"  # in s3_bucket
    key_prefix: str = Field(default="maskq", pattern=r"^[A-Za-z0-9_-]{1,64}$")  # of keys and queues
    model: str | None = None  # a hub id, a directory in the hub's layout, or `demo`
    model_name: ModelName | None = None  # its served name; None: its id or folder name
    default_model: ModelName | None = None  # served name; for requests without a model
    max_queued: int = Field(default=100_000, ge=0)  # per model; 0: no limit
    max_queued_per_tenant: int = Field(default=0, ge=0)  # per model and tenant=; 0: no limit
    max_attempts: int = Field(default=3, ge=1)  # charged attempts; a request can override it
    queue_ttl_s: float = Field(default=86_400.0, gt=0)
    run_timeout_s: float = Field(default=600.0, gt=0)
    webhook_url: WebhookUrl | None = None  # notified when jobs without a webhook of their own end
    retention_s: float = Field(default=7 * 86_400.0, gt=0)  # of ended records, idempotency keys
    output_retention_s: float = Field(default=0.0, ge=0)  # of outputs and uploads; 0: forever

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment; `overrides` win. Raises InvalidRequest that lists every error."""
        refuse_unknown()
        try:
            return cls(**overrides)
        except ValidationError as error:
            sentences = (cls._sentence(each, overrides) for each in error.errors())
            raise InvalidRequest("; ".join(sentences)) from None
        except SettingsError as error:  # pydantic-settings hides what a source raised
            if isinstance(error.__cause__, InvalidRequest):
                raise error.__cause__ from None
            raise

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment and the files that it names."""
        return init_settings, _Environment(settings_cls)

    @classmethod
    def _sentence(cls, error: ErrorDetails, overrides: Mapping[str, Any]) -> str:
        field = str(error["loc"][0])
        name = field if field in overrides else f"{PREFIX}{field.upper()}"
        if error["type"] == "extra_forbidden":
            return f"{name} is not a setting of maskq{_near(field, cls.model_fields)}"
        by_file = field not in overrides and environment.given_by_file(name)
        secret = by_file or field.endswith(_SECRET)  # a wrong file may hold anything
        name += SUFFIX if by_file else ""
        got = "" if secret else f" (got {error['input']!r:.100})"
        return f"{name}: {error['msg']}{got}"


class _Environment(EnvSettingsSource):
    """Strips white space around values and treats an empty value as unset.

    The file of a setting is not read if the program sets the setting itself.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        if isinstance(value, str):
            value = value.strip() or None
        name = PREFIX + field_name.upper()
        if field_name not in self.current_state and environment.given_by_file(name):
            value = environment.value(name)
        return value, key, is_complex


# Endings of names whose values are never shown: a URL may contain a password.
_SECRET = ("_url", "_secret", "_tokens")


def usable(settings: object) -> Settings:
    """`settings`, if they are Settings. Raises InvalidRequest otherwise."""
    if isinstance(settings, Settings):
        return settings
    # Not shown: a URL may hold a password.
    got = "nothing" if settings is None else f"{type(settings).__name__}"
    raise InvalidRequest(
        f"a client needs settings and got {got}: use Client.from_env(), which reads the MASKQ_ "
        f"variables, or Client.from_env(redis_url='redis://…', s3_endpoint_url='http://…')"
    )


# Every variable of every part of maskq, and of docker-compose.yml: a client and a worker may share an
# environment.
KNOWN = set(Settings.model_fields) | {
    "model_revision", "device", "dtype", "backend", "max_batch_size", "concurrency", "lease_s",
    "forward_timeout_s", "max_score_bytes", "s3_client",
    "max_image_bytes", "max_image_pixels", "max_image_scans", "max_decode_cpu_s",
    "max_decoded_bytes", "decode_in", "decode_processes", "allowed_buckets",
    "allowed_locations", "allowed_output_locations", "log_level",
    "health_file", "event_retention_s", "webhook_secret", "webhook_allowed_hosts",
    "webhook_retries_s", "stack_redis_server", "presigned_allowed_hosts", "trigger_rules",
    "trigger_tokens", "trigger_sns_topics", "trigger_queue_url", "sqs_endpoint_url",
    "gateway_url", "api_key", "gateway_max_upload_bytes", "gateway_outputs", "s3_public_endpoint_url",
    "cors_origins",
    "image", "python_image", "redis_image", "s3_image", "torch_build", "torch_index", "redis_port",
    "redis_memory", "redis_maxmemory", "s3_port", "s3_memory", "worker_memory", "gateway_port",
    "env_role",
}  # fmt: skip


def refuse_unknown() -> None:
    """Raise InvalidRequest for an unknown MASKQ_ variable, which would otherwise have no effect."""
    for name in os.environ:
        if name.startswith(PREFIX) and environment.setting_of(name, KNOWN) is None:
            setting = name.removeprefix(PREFIX).lower()
            raise InvalidRequest(
                f"{name} is not a setting of maskq{_near(setting, KNOWN, in_environment=True)}"
            )
    environment.refuse_both(KNOWN)


def _near(name: str, known: Iterable[str], *, in_environment: bool = False) -> str:
    names = list(known)
    if in_environment and name.endswith(SUFFIX.lower()):
        names += [one + SUFFIX.lower() for one in names]
    for near in difflib.get_close_matches(name, names, n=1):
        return f"; did you mean {PREFIX + near.upper() if in_environment else near}?"
    return ""
