"""The operations of `Client` and `AsyncClient`, each written once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from maskq.client.admin.api_keys import ApiKeyOperations
from maskq.client.admin.models import ModelOperations
from maskq.client.admin.tenants import TenantOperations
from maskq.client.job import JobCore
from maskq.client.operations.connecting import GatewayAccess, access_from_env, access_of
from maskq.client.operations.deliveries import DeliveryOperations
from maskq.client.operations.jobs import JobOperations
from maskq.client.operations.submissions import SubmitOperations

if TYPE_CHECKING:
    from maskq.client.direct.objects import Objects
    from maskq.settings import Settings

JobT = TypeVar("JobT", bound=JobCore[Any])
BatchT = TypeVar("BatchT")


class ClientCore(
    SubmitOperations[JobT, BatchT],
    JobOperations[JobT],
    DeliveryOperations,
    ModelOperations,
    ApiKeyOperations,
    TenantOperations,
):
    """All operations but `segment`, `submit_each` and `events`."""

    session: Any
    _open_session: Callable[[Settings | GatewayAccess], Any]

    def __init__(
        self, settings: Settings | str | None = None, *, api_key: str | None = None
    ) -> None:
        """`settings`: the URL of a gateway, with an `api_key` for it; or the settings of a client that
        reaches Redis and S3 itself. `from_env` reads either from the environment.
        """
        self._access = access_of(settings, api_key)
        self.session = type(self)._open_session(self._access)
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
        # Connections are not pickled. The settings are, with the password of Redis or the API key.
        return type(self), (self._access,)

    @classmethod
    def from_env(
        cls, *, transport: Literal["direct", "http"] | None = None, **overrides: Any
    ) -> Self:
        """A client configured by MASKQ_* variables.

        With MASKQ_REDIS_URL it reaches Redis and S3 itself (boto3 finds the credentials); else it calls
        the gateway at MASKQ_GATEWAY_URL with MASKQ_API_KEY. `transport` chooses one of them.

        `overrides`: settings of a direct client that replace variables. Their names are the variables'
        in lower case, without MASKQ_: `from_env(redis_url="redis://…", s3_bucket="photos")`. Raises
        InvalidRequest for an unknown setting or an invalid value.
        """
        access: Any = access_from_env(transport, overrides)
        return cls(access)
