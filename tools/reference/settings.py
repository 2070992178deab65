"""docs/reference/settings.md."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from tools.reference.docstrings import describe
from tools.reference.markdown import code, one_line, page, table

from maskq.environment import PREFIX
from maskq.http.settings import HttpSettings
from maskq.settings import Settings
from maskq.telemetry.settings import TelemetrySettings
from maskq_gateway.settings import GatewaySettings
from maskq_worker.settings import WorkerSettings
from maskq_worker.webhooks import WebhookSettings

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
_ROLES = {
    Settings: ("Every process", "Clients, workers, webhooks and the gateway read these."),
    HttpSettings: ("Clients over HTTP", "Clients read these to find the gateway."),
    TelemetrySettings: (
        "Metrics and logs",
        "Every process that stays up reads these: workers, webhooks, the gateway, `maskq metrics`.",
    ),
    WorkerSettings: ("Workers", "`maskq worker` reads these as well."),
    WebhookSettings: (
        "Webhooks",
        "`maskq worker --role webhooks` reads these beside those of a worker.",
    ),
    GatewaySettings: ("Gateway", "`maskq gateway` and `maskq trigger sqs` read these as well."),
}
_STACK = {
    "stack_redis_server": "Path of the Redis or Valkey server that `maskq up` starts.",
}
# Beside docker-compose.yml's own variables, which that file gives a default.
_COMPOSE = {
    "image": "image of the workers",
    "gateway_image": "image of maskq's other services, without torch",
    "python_image": "base of these images",
    "build_image": "image that their packages are installed in",
    "torch_build": "`cuda` or `cpu`",
    "torch_index": "index that torch is installed from",
    "redis_image": "image of Redis or Valkey",
    "redis_port": "port on this machine",
    "redis_memory": "limit of the container",
    "redis_maxmemory": "limit of the data",
    "s3_image": "image of the S3 server",
    "s3_port": "port on this machine",
    "s3_memory": "limit of the container",
    "worker_memory": "limit of a worker's container",
    "gateway_port": "port on this machine",
    "prometheus_image": "image of Prometheus",
    "prometheus_port": "port on this machine",
    "prometheus_retention": "how long it keeps samples",
    "grafana_image": "image of Grafana",
    "grafana_port": "port on this machine",
    "env_role": "Redis user that the service `env` prints the variables of",
}


def settings() -> str:
    """The page."""
    parts = [
        "Settings are environment variables. A misspelled one is an error, an empty one counts as "
        "not set, and white space around a value is ignored. `MASKQ_X_FILE=/run/secrets/x` reads "
        "the value of `MASKQ_X` from a file. S3 credentials come by the AWS chain (environment, "
        "profile, instance role); `AWS_CA_BUNDLE` names a CA of your own."
    ]
    for role, (title, who) in _ROLES.items():
        parts += [f"## {title}", who, table(("variable", "type", "default", ""), _rows(role))]
    stack = ([code(PREFIX + name.upper()), text] for name, text in _STACK.items())
    parts += ["## Local stack", table(("variable", ""), stack)]
    parts += [
        "## docker-compose.yml",
        "`docker compose` reads these; the programs ignore them.",
        table(("variable", "default", ""), _compose()),
    ]
    return page("Settings", *parts)


def names() -> set[str]:
    """Every setting that the page describes, without MASKQ_ and in lower case."""
    described = {name for role in _ROLES for name in role.model_fields}
    return described | set(_STACK) | set(_COMPOSE)


def _rows(role: type[Settings]) -> Iterator[tuple[str, ...]]:
    for name, field in role.model_fields.items():
        if name in role.__annotations__:
            default = field.get_default(call_default_factory=True)
            kind = _kind(field.annotation)
            text = one_line(describe(role, name))
            yield code(PREFIX + name.upper()), kind, code(_default(default)), text


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(code, inner))
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(one) for one in inner if one is not type(None))
    if origin in (tuple, frozenset):
        return "list"
    words = {int: "integer", float: "number", bool: "true or false", Path: "path"}
    return words.get(annotation, "text")


def _default(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value is PydanticUndefined or value in ("", (), frozenset()):
        return ""
    if isinstance(value, tuple | frozenset):
        return ",".join(f"{one:g}" if isinstance(one, float | int) else str(one) for one in value)
    return f"{value:g}" if isinstance(value, float) and value < 1e6 else str(value)


def _compose() -> Iterator[tuple[str, ...]]:
    text = COMPOSE.read_text(encoding="utf-8")
    for name, words in _COMPOSE.items():
        variable = PREFIX + name.upper()
        found = set(re.findall(rf"\$\{{{variable}:-([^}}]*)\}}", text))
        yield code(variable), " or ".join(map(code, sorted(found))), words
