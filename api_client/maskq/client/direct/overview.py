"""A deployment at a glance, from Redis and from this process's settings."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from maskq.client.operations.flow import Flow
from maskq.contract.deployment.overview import DeploymentLimits, Overview, Stores
from maskq.errors import StoreUnavailable
from maskq.inert import without_secrets
from maskq.ledger import RedisUrl
from maskq.ledger.calls import Call
from maskq.ledger.calls.deployment.overview import Found, overview
from maskq.ledger.calls.submission import Limits
from maskq.ledger.records import pairs

if TYPE_CHECKING:
    from maskq.settings import Settings

_HELLO: Final[Call[dict[str, str]]] = Call(None, ("HELLO",), pairs)


def read_overview(settings: Settings) -> Flow[Overview]:
    """Ask Redis and put the settings beside it. Raises StoreUnavailable."""
    found: Found = yield overview(Limits.of(settings))
    return Overview(
        now_ms=found.now_ms,
        version=version("maskq"),
        queues=found.queues,
        default=found.default,
        totals=found.totals,
        stores=_stores(settings, (yield from _redis_version())),
        limits=DeploymentLimits.model_validate(
            {name: getattr(settings, name) for name in DeploymentLimits.model_fields}
        ),
    )


def _redis_version() -> Flow[str]:
    try:
        said: dict[str, str] = yield _HELLO
    except StoreUnavailable:  # the ACL may forbid it
        return ""
    return f"{said.get('server', 'redis')} {said.get('version', '')}".strip()


def _stores(settings: Settings, redis_version: str) -> Stores:
    return Stores(
        redis=RedisUrl.of(settings).place,
        redis_version=redis_version,
        key_prefix=settings.key_prefix,
        s3_endpoint=without_secrets(settings.s3_endpoint_url or ""),
        s3_bucket=settings.s3_bucket,
        output_prefix=settings.output_prefix,
    )
