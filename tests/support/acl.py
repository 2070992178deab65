"""The users that deploy/redis/users.acl describes, made on a running server."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import redis

FILE = Path(__file__).parents[2] / "deploy" / "redis" / "users.acl"
_PASSWORD = ">CHANGE-ME"


def users(prefix: str = "maskq") -> dict[str, list[str]]:
    """Rules by user, as ACL SETUSER takes them; the password is the user's name."""
    lines = [line.split() for line in FILE.read_text().splitlines()]
    made: dict[str, list[str]] = {}
    for _, user, *rules in lines:
        for_prefix = [
            rule.replace("maskq", prefix)
            if rule[0] in "~&%"
            else rule.replace(_PASSWORD, f">{user}")
            for rule in rules
        ]
        made[user] = for_prefix
    # As docs/redis.md says, for the queue in which a caller's chain ends.
    made["worker"] += ["~shop", "~_kombu.binding.shop", "~_kombu.binding_permanent.shop"]
    return made


def create(url: str, prefix: str = "maskq") -> None:
    """All roles; `default` stays as it is."""
    with redis.Redis.from_url(url, protocol=2) as admin:
        for user, rules in users(prefix).items():
            if user != "default":
                admin.execute_command("ACL", "SETUSER", user, "reset", *rules)


def configuration(prefix: str = "maskq") -> str:
    """The same, as lines of a server's configuration."""
    lines = (
        f"user {user} {' '.join(rules)}\n"
        for user, rules in users(prefix).items()
        if user != "default"
    )
    return "".join(lines)


def url_of(user: str, url: str) -> str:
    """The same server, as a role."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{quote(user)}:{quote(user)}@{rest.rpartition('@')[2]}"
