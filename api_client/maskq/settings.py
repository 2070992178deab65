"""Settings: environment variables MASKQ_*, read once and frozen. A misspelled name is an error.

A variable NAME can also be given as a file: MASKQ_REDIS_URL_FILE=/run/secrets/redis-url.

Client and worker share `Settings`; `maskq_worker.settings.WorkerSettings` adds the worker's own. boto3
finds the S3 credentials (environment, profile, instance role).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
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

__all__ = ["PREFIX", "Settings", "known", "refuse_unknown", "usable"]


def _no_edge_slashes(value: str) -> str:
    return value.strip("/")


class Settings(BaseSettings):
    """The settings that client, worker, gateway and stack share."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """Redis or Valkey: `redis://`, `rediss://` (TLS), `unix://` or `sentinel://` (docs/redis.md)."""
    redis_ca_file: Path | None = None
    """PEM file of the CA that signed the certificate of a `rediss://` server. Default: the system's
    CAs.
    """
    s3_endpoint_url: str | None = None
    """URL of the S3 server. Default: AWS."""
    s3_addressing: Literal["path", "virtual", "auto"] = "path"
    """Where a request names its bucket: in the path, in the host name, or as boto3 decides."""
    s3_bucket: str = "maskq"
    """Bucket for uploads and outputs."""
    output_prefix: Annotated[str, AfterValidator(_no_edge_slashes)] = "maskq"
    """Folder in that bucket for uploads and outputs."""
    key_prefix: str = Field(default="maskq", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """Prefix of all keys and queues in Redis."""
    model: str | None = None
    """Checkpoint that workers load, and the model of a client's requests that name none."""
    model_name: ModelName | None = None
    """Name under which a worker serves it. Default: the hub id or the directory's name."""
    default_model: ModelName | None = None
    """Model of requests that name none, by the name under which it is served."""
    max_queued: int = Field(default=100_000, ge=0)
    """Jobs of one model that may wait; further ones are refused with `queue_full`. 0: no limit."""
    max_queued_per_tenant: int = Field(default=0, ge=0)
    """Jobs of one model and one tenant that may wait. 0: no limit."""
    max_attempts: int = Field(default=3, ge=1)
    """Charged attempts of a job. Only attempts that fail through the job itself are charged."""
    queue_ttl_s: float = Field(default=86_400.0, gt=0)
    """Seconds in which a job must start; otherwise it expires."""
    run_timeout_s: float = Field(default=600.0, gt=0)
    """Seconds an attempt may run; otherwise the job fails with `timeout`."""
    webhook_url: WebhookUrl | None = None
    """Receiver of events of jobs that name no webhook themselves."""
    retention_s: float = Field(default=7 * 86_400.0, gt=0)
    """Seconds for which records and idempotency keys are kept after a job's end."""
    shadow_model: str | None = None
    """`NAME:SHARE`: the model with which `maskq shadow mirror` runs that share of the jobs again
    (docs/shadow.md).
    """
    output_retention_s: float = Field(default=0.0, ge=0)
    """Seconds for which outputs and uploads are kept after a job's end. 0: forever."""

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
        return f"{name}: {error['msg'].removeprefix('Value error, ')}{got}"


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
_SECRET = ("_url", "_secret", "_tokens", "_key")


def usable(settings: object) -> Settings:
    """`settings`, if they are Settings. Raises InvalidRequest otherwise."""
    if isinstance(settings, Settings):
        return settings
    # Not shown: a URL may hold a password.
    got = type(settings).__name__
    raise InvalidRequest(
        f"the first argument of a client is the URL of a gateway or settings, and it got {got}: use "
        f"Client(), which reads the MASKQ_ variables, Client('https://…', api_key=…) or "
        f"Client(redis_url='redis://…')"
    )


# Variables that no settings class reads: of an HTTP client, of the stack, of docker-compose.yml.
_OTHERS = {
    "gateway_url", "api_key", "transport", "gateway_plain_http_hosts", "stack_redis_server",
    "image", "gateway_image", "python_image", "build_image", "redis_image", "s3_image", "torch_build",
    "torch_index", "redis_port", "redis_memory", "redis_maxmemory", "s3_port", "s3_memory",
    "worker_memory", "gateway_port", "prometheus_image", "prometheus_port", "prometheus_retention",
    "grafana_image", "grafana_port", "env_role",
}  # fmt: skip
# The packages name their settings classes in this group of entry points.
_GROUP = "maskq.settings"


@cache
def known() -> frozenset[str]:
    """Every setting of the installed packages, lower case, without MASKQ_.

    Processes of a deployment often share one environment, so each accepts the settings of all.
    """
    names = _OTHERS.union(Settings.model_fields)
    for entry in entry_points(group=_GROUP):
        names |= set(entry.load().model_fields)
    return frozenset(names)


def refuse_unknown() -> None:
    """Raise InvalidRequest for a MASKQ_ variable that no package reads: it is probably misspelled."""
    own = frozenset(_OTHERS.union(Settings.model_fields))
    names = [name for name in os.environ if name.startswith(PREFIX)]
    is_own = all(environment.setting_of(name, own) for name in names)
    accepted = own if is_own else known()  # which imports the other packages' settings
    for name in names:
        if environment.setting_of(name, accepted) is None:
            setting = name.removeprefix(PREFIX).lower()
            raise InvalidRequest(
                f"{name} is not a setting of maskq{_near(setting, accepted, in_environment=True)}"
            )
    environment.refuse_both(accepted)


def _near(name: str, known: Iterable[str], *, in_environment: bool = False) -> str:
    names = list(known)
    if in_environment and name.endswith(SUFFIX.lower()):
        names += [one + SUFFIX.lower() for one in names]
    for near in difflib.get_close_matches(name, names, n=1):
        return f"; did you mean {PREFIX + near.upper() if in_environment else near}?"
    return ""
