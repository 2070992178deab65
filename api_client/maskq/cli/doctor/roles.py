"""Which role this process has, by its settings."""

from __future__ import annotations

from maskq import environment
from maskq.cli.doctor.check import Role
from maskq.client.operations.connecting import GatewayAccess, access_from_env
from maskq.errors import InvalidRequest
from maskq.ledger import RedisUrl
from maskq.settings import Settings


def role_of_settings() -> Role:
    """client if the settings name a gateway; else a role that is the name of the Redis user; else
    worker if MASKQ_MODEL is set; else publisher."""
    try:
        access = access_from_env(None, {})
        if isinstance(access, GatewayAccess):
            return Role.CLIENT
        user = RedisUrl.of(access).username or ""
    except InvalidRequest:  # the check of the settings says so
        return Role.PUBLISHER
    if user in set(Role):
        return Role(user)
    return Role.WORKER if environment.value("MASKQ_MODEL") else Role.PUBLISHER


def settings_or_defaults() -> Settings:
    """The settings; those that are not valid have their defaults."""
    try:
        return Settings.load()
    except InvalidRequest:
        return Settings.model_construct()
