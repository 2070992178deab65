"""The operations of `Client` and `AsyncClient`, each written once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from maskq.client.admin.api_keys import ApiKeyOperations
from maskq.client.admin.models import ModelOperations
from maskq.client.admin.tenants import TenantOperations
from maskq.client.admin.views import ViewOperations
from maskq.client.job import JobCore
from maskq.client.operations.connecting import GatewayAccess, access_from_env, access_of, refuse_s3
from maskq.client.operations.deliveries import DeliveryOperations
from maskq.client.operations.event_groups import EventGroupOperations
from maskq.client.operations.jobs import JobOperations
from maskq.client.operations.submissions import SubmitOperations
from maskq.errors import InvalidRequest

if TYPE_CHECKING:
    from maskq.client.direct.objects import Objects
    from maskq.s3.sources import S3Source
    from maskq.settings import Settings

JobT = TypeVar("JobT", bound=JobCore[Any])
BatchT = TypeVar("BatchT")


class ClientCore(
    SubmitOperations[JobT, BatchT],
    JobOperations[JobT],
    DeliveryOperations,
    EventGroupOperations,
    ModelOperations,
    ApiKeyOperations,
    TenantOperations,
    ViewOperations,
):
    """All operations but `segment`, `submit_each` and `events`."""

    session: Any
    _open_session: Callable[[Settings | GatewayAccess, S3Source | None], Any]

    def __init__(
        self,
        settings_or_https_url: Settings | str | None = None,
        *,
        api_key: str | None = None,
        redis_url: str | None = None,
        s3: S3Source | None = None,
    ) -> None:
        """Connects at the first use. Without arguments as `from_env`.

        `settings_or_https_url`: the URL of a gateway, with an `api_key` for it; or the settings of a
        client that reaches Redis and S3 itself; default: the MASKQ_* variables. `redis_url` replaces
        MASKQ_REDIS_URL. `s3`: a boto3.Session whose credentials are used, or a boto3 client of S3 that
        is shared; default: boto3 finds the credentials. Raises InvalidRequest.
        """
        self._access = access_of(settings_or_https_url, api_key, redis_url)
        self._s3 = s3
        if s3 is not None:
            refuse_s3(self._access)
        self.session = type(self)._open_session(self._access, s3)
        self._driver: Any = self.session.driver

    @property
    def settings(self) -> Settings:
        settings: Settings = self.session.settings
        return settings

    @property
    def key_prefix(self) -> str:
        return str(self.session.key_prefix)

    @property
    def objects(self) -> Objects:
        objects: Objects = self.session.objects
        return objects

    def __reduce__(self) -> tuple[Any, ...]:
        if self._s3 is not None:
            raise InvalidRequest(
                "a client with s3= cannot be pickled: make one on the other side, with a boto3 session "
                "of its own"
            )
        # Connections are not pickled. The settings are, with the password of Redis or the API key.
        return type(self), (self._access,)

    @classmethod
    def from_env(
        cls,
        *,
        transport: Literal["direct", "http"] | None = None,
        s3: S3Source | None = None,
        **overrides: Any,
    ) -> Self:
        """A client configured by MASKQ_* variables.

        With MASKQ_REDIS_URL it reaches Redis and S3 itself (boto3 finds the credentials); else it calls
        the gateway at MASKQ_GATEWAY_URL with MASKQ_API_KEY. `transport` chooses one of them. `s3`: see
        `Client`.

        `overrides`: settings of a direct client that replace variables. Their names are the variables'
        in lower case, without MASKQ_: `from_env(redis_url="redis://…", s3_bucket="photos")`. Raises
        InvalidRequest for an unknown setting or an invalid value.
        """
        access: Any = access_from_env(transport, overrides)
        return cls(access, s3=s3)
