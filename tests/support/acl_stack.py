"""A stack whose processes and callers each connect as the user of their role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from support import acl

from maskq_standalone.stack import Stack
from maskq_standalone.workers import Worker

_ROLES: Final = {"webhooks": "webhooks", "uploads": "gateway"}


class AclStack(Stack):
    """`environment` is a publisher's; workers and other processes get their own user."""

    _made_users = False

    @property
    def environment(self) -> dict[str, str]:
        if not self._made_users:
            acl.create(self.redis.url)
            # For the next start of the server.
            settings = self.redis.child_stdin() + acl.configuration().encode()
            self.redis.child_stdin = lambda: settings  # type: ignore[method-assign]
            self._made_users = True
        return super().environment | self.as_user("publisher")

    def as_user(self, user: str) -> dict[str, str]:
        """The setting that makes a process this user."""
        return {"MASKQ_REDIS_URL": acl.url_of(user, self.redis.url)}

    def start_workers(self, count: int, env: Mapping[str, str] | None = None) -> list[Worker]:
        return super().start_workers(count, self.as_user("worker") | dict(env or {}))

    def _start_other(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> None:
        _ = self.environment  # the users must be there
        super()._start_other(name, command, self.as_user(_ROLES[name]) | dict(env or {}))
