"""A stack whose processes and callers each have the Redis user and the S3 policy of their role."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from support import acl, iam_server

from maskq_standalone.servers.s3 import REGION, S3Server
from maskq_standalone.servers.upload_queue import QUEUE
from maskq_standalone.stack import Stack
from maskq_standalone.workers import Worker

POLICIES: Final = Path(__file__).parents[2] / "deploy" / "s3"
INPUT_BUCKET: Final = "photos"
OUTPUT_BUCKET: Final = "maskq"
S3_ROLES: Final = ("publisher", "reader", "worker", "webhooks", "gateway")
# Of each process: its Redis user, and its S3 role. The HTTP API uploads and reads for its callers.
_ROLES: Final = {
    "webhooks": ("webhooks", "webhooks"),
    "uploads": ("gateway", "gateway"),
    "gateway": ("gateway", "publisher"),
}


class IamServer(S3Server):
    """The emulator with a key for each role. Its first key, of the server itself, may do all."""

    def __init__(self, directory: Path, **rest: Any) -> None:
        super().__init__(directory, **rest)
        self.keys = {
            role: (f"AKIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30))
            for role in S3_ROLES
        }

    def as_role(self, role: str) -> dict[str, str]:
        """The variables of the AWS chain with the role's key, or with one that no server knows."""
        key, secret = self.keys.get(role, ("AKIANOBODY", "none"))
        return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}

    def command(self) -> Sequence[str]:
        return [sys.executable, iam_server.__file__]

    def child_environment(self) -> Mapping[str, str]:
        placeholders = {
            "BUCKET": self.bucket,
            "PREFIX": "maskq",
            "INPUT-BUCKET": INPUT_BUCKET,
            "OUTPUT-BUCKET": OUTPUT_BUCKET,
            "OUTPUT-PREFIX": "masks",  # of examples/uploads.toml
            "REGION": REGION,
            "ACCOUNT": "000000000000",
            "QUEUE": QUEUE,
        }
        return {
            **super().child_environment(),
            "IDENTITIES": str(self.directory / "identities.json"),
            "POLICIES": str(POLICIES),
            "PLACEHOLDERS": json.dumps(placeholders),
        }

    def spawn(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "identities.json").write_text(iam_server.document(self.keys))
        super().spawn()


class AclStack(Stack):
    """`environment` is a publisher's; workers and other processes get their own user and key."""

    s3_server = IamServer
    s3: IamServer
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

    def as_user(self, user: str, s3_role: str | None = None) -> dict[str, str]:
        """The variables that make a process this Redis user, with its S3 role or another one."""
        url = acl.url_of(user, self.redis.url)
        return {"MASKQ_REDIS_URL": url} | self.s3.as_role(s3_role or user)

    def as_operator(self) -> dict[str, str]:
        """The variables of somebody who may do all."""
        return super().environment

    def start_workers(self, count: int, env: Mapping[str, str] | None = None) -> list[Worker]:
        return super().start_workers(count, self.as_user("worker") | dict(env or {}))

    def _start_other(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> None:
        _ = self.environment  # the users must be there
        super()._start_other(name, command, dict(env or {}) | self.as_user(*_ROLES[name]))


def variables_of(stack: Stack, user: str, s3_role: str | None = None) -> dict[str, str]:
    """The variables that give a process of a test its role under --acl-users; else none."""
    return stack.as_user(user, s3_role) if isinstance(stack, AclStack) else {}


def operator_variables(stack: Stack) -> dict[str, str]:
    """The variables of somebody who may do all under --acl-users; else none."""
    return stack.as_operator() if isinstance(stack, AclStack) else {}


def use_acl_stacks() -> None:
    """Have every `Stack` of this process be an `AclStack`, also under a name that a conftest.py took
    before: pytest imports some of them before it knows its options."""
    for module in list(sys.modules.values()):
        if getattr(module, "Stack", None) is Stack and module.__name__ != __name__:
            module.Stack = AclStack  # type: ignore[attr-defined]

    def made(cls: type[Stack], *_: Any, **__: Any) -> Any:
        assert cls is not Stack, "a stack without users of its own, under --acl-users"
        return object.__new__(cls)

    Stack.__new__ = made  # type: ignore[method-assign,assignment]
