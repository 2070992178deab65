"""How a client reaches its deployment: directly, or by a gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from maskq import environment
from maskq.errors import InvalidRequest
from maskq.http.address import GatewayAddress, is_http
from maskq.per_process import no_fork

if TYPE_CHECKING:
    from maskq.s3.sources import S3Source
    from maskq.settings import Settings

_REDIS: Final = re.compile(r"\s*(redis|rediss|unix|sentinel)(\+\w+)?://", re.IGNORECASE)
_NOT_BOTH: Final = (
    "goes with a client that reaches Redis and S3 itself, and this one calls a gateway"
)
_DIRECT_PACKAGES: Final = ("redis", "boto3", "botocore")


@dataclass(frozen=True, slots=True)
class GatewayAccess:
    """A gateway, and the API key for it, which no repr shows."""

    address: GatewayAddress
    api_key: SecretStr = field(repr=False)


def access_of(
    given: object, api_key: str | None = None, redis_url: str | None = None
) -> Settings | GatewayAccess:
    """What a client was given, checked; without anything, what the environment says.

    Raises InvalidRequest.
    """
    from maskq.http.settings import HttpSettings

    if isinstance(given, GatewayAccess):
        return given
    if not (isinstance(given, str) and is_http(given)):
        if api_key is not None:
            raise InvalidRequest(
                "api_key goes with the URL of a gateway: Client('https://…', api_key=…)"
            )
        return _direct(given, redis_url)
    if redis_url is not None:
        raise InvalidRequest(f"redis_url {_NOT_BOTH}")
    hosts = HttpSettings.load().gateway_plain_http_hosts
    return _gateway(given, api_key or "", hosts, "give api_key=…, or use Client.from_env()")


def refuse_s3(access: Settings | GatewayAccess) -> None:
    """Raise InvalidRequest for `s3=` of a client that calls a gateway."""
    if isinstance(access, GatewayAccess):
        raise InvalidRequest(f"s3 {_NOT_BOTH}")


def _direct(given: object, redis_url: str | None) -> Settings | GatewayAccess:
    from maskq.settings import Settings, usable

    if isinstance(given, str) and _REDIS.match(given):
        raise InvalidRequest(
            "the first argument is the URL of a Redis server: give it as redis_url=, as in "
            "Client(redis_url='redis://…'), or use Client.from_env(), which reads MASKQ_REDIS_URL"
        )
    if given is None:
        return access_from_env(None, {} if redis_url is None else {"redis_url": redis_url})
    settings = usable(given)
    if redis_url is None:
        return settings
    return Settings.load(**dict(settings) | {"redis_url": redis_url})


def access_from_env(transport: str | None, overrides: dict[str, Any]) -> Settings | GatewayAccess:
    """What the environment says. Raises InvalidRequest."""
    from maskq.http.settings import HttpSettings
    from maskq.settings import Settings

    chosen = transport or environment.value("MASKQ_TRANSPORT")
    if chosen not in (None, "direct", "http"):
        raise InvalidRequest(f"transport is {chosen!r}; it is 'direct' or 'http'")
    has_redis = "redis_url" in overrides or environment.value("MASKQ_REDIS_URL") is not None
    has_gateway = environment.value("MASKQ_GATEWAY_URL") is not None
    if chosen == "direct" or (chosen is None and (has_redis or overrides or not has_gateway)):
        return Settings.load(**overrides)
    if overrides:
        raise InvalidRequest(
            f"{', '.join(sorted(overrides))}: settings of a direct client, and transport='http' calls "
            f"a gateway"
        )
    settings = HttpSettings.load()
    if not settings.gateway_url:
        raise InvalidRequest("transport is 'http', so MASKQ_GATEWAY_URL must be set")
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    return _gateway(
        settings.gateway_url, key, settings.gateway_plain_http_hosts, "set MASKQ_API_KEY"
    )


def blocking_session(access: Settings | GatewayAccess, s3: S3Source | None) -> Any:
    """The session of a Client."""
    with no_fork():  # a child forked during an import would find the module locked
        if isinstance(access, GatewayAccess):
            from maskq.client.http.session import BlockingHttpSession

            return BlockingHttpSession(access.address, access.api_key)
        with _direct_installed():
            from maskq.client.direct.session import BlockingSession

        return BlockingSession(access, s3)


def async_session(access: Settings | GatewayAccess, s3: S3Source | None) -> Any:
    """The session of an AsyncClient."""
    with no_fork():
        if isinstance(access, GatewayAccess):
            from maskq.client.http.session import AsyncHttpSession

            return AsyncHttpSession(access.address, access.api_key)
        with _direct_installed():
            from maskq.client.direct.session import AsyncSession

        return AsyncSession(access, s3)


@contextmanager
def _direct_installed() -> Iterator[None]:
    """Raise InvalidRequest where an import lacks a package of the extra `direct`."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _DIRECT_PACKAGES:
            raise
        raise InvalidRequest(
            f"a client that reaches Redis and S3 itself needs the package {package}: pip install "
            f"'maskq[direct]'; or use a gateway (MASKQ_GATEWAY_URL and MASKQ_API_KEY)"
        ) from error


def _gateway(url: str, api_key: str, hosts: frozenset[str], missing: str) -> GatewayAccess:
    address = GatewayAddress.parse(url, hosts)
    key = api_key.strip()
    if not key:
        raise InvalidRequest(f"a client of the gateway {address.url} needs an API key: {missing}")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InvalidRequest("the API key is not the text of a key; `maskq keys create` prints one")
    return GatewayAccess(address, SecretStr(key))
