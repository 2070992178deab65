"""The operations of `Client` and `AsyncClient`, each written once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from maskq.client.admin.api_keys import ApiKeyOperations
from maskq.client.admin.models import ModelOperations
from maskq.client.job import JobCore
from maskq.client.objects import Objects
from maskq.client.operations.deliveries import DeliveryOperations
from maskq.client.operations.jobs import JobOperations
from maskq.client.operations.submissions import SubmitOperations
from maskq.client.session import Session

if TYPE_CHECKING:
    from maskq.settings import Settings

JobT = TypeVar("JobT", bound=JobCore[Any])
BatchT = TypeVar("BatchT")


class ClientCore(
    SubmitOperations[JobT, BatchT],
    JobOperations[JobT],
    DeliveryOperations,
    ModelOperations,
    ApiKeyOperations,
):
    """All operations but `segment`, `submit_each` and `events`."""

    session: Session
    _session_type: Callable[[Settings], Session]

    def __init__(self, settings: Settings | None = None) -> None:
        """`settings`: see `from_env`, which reads them from the environment."""
        from maskq.settings import usable

        self.session = type(self)._session_type(usable(settings))
        self._driver: Any = self.session.driver

    @property
    def settings(self) -> Settings:
        return self.session.settings

    @property
    def key_prefix(self) -> str:
        return self.session.key_prefix

    @property
    def objects(self) -> Objects:
        return self.session.objects

    def __reduce__(self) -> tuple[Any, ...]:
        # Connections are not pickled. The settings are, with the password of Redis.
        return type(self), (self.settings,)

    @classmethod
    def from_env(cls, **overrides: Any) -> Self:
        """A client configured by MASKQ_* variables; boto3 finds the S3 credentials.

        `overrides`: settings that replace variables. Their names are the variables' in lower case,
        without MASKQ_: `from_env(redis_url="redis://…", s3_bucket="photos")`. Raises InvalidRequest for
        an unknown setting or an invalid value.
        """
        from maskq.settings import Settings

        return cls(Settings.load(**overrides))
