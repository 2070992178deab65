"""The commands that each role needs of Redis, and whether a server grants them.

Checked once at the start, without side effects: Redis itself says what the ACL allows. Optional
commands (CLIENT SETINFO, WAITAOF, HELLO) are not required.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, Final

from redis import ResponseError

from maskq.contract import FailureCode
from maskq.errors import InvalidRequest, StoreUnavailable
from maskq.ledger import keys
from maskq.ledger.calls import Call
from maskq.ledger.connections.pools import Interrupted
from maskq.ledger.connections.redis_url import NAME
from maskq.ledger.executor import Ledger
from maskq.ledger.records import pairs
from maskq.process import CannotStart

logger = logging.getLogger(__name__)

OLDEST: Final = (7, 0)  # scripts say by `#!lua flags` what they may do, and are checked by the ACL
_DOCS: Final = "docs/redis.md has the ACL lines"
_PAUSE_S: Final = 1.0  # before a Redis that is away is asked again
_REPLICA_S: Final = 60.0  # for so long a failover may take

# Which of the commands in ARGV would be refused; each begins with how many words it has.
_DENIED: Final = """#!lua flags=allow-oom
if not redis.acl_check_cmd then return {} end
local denied, i, number = {}, 1, 0
while i <= #ARGV do
  local words = tonumber(ARGV[i])
  number = number + 1
  if not redis.acl_check_cmd(unpack(ARGV, i + 1, i + words)) then denied[#denied + 1] = number end
  i = i + words + 1
end
return denied
"""

Command = tuple[str, ...]


class Role(StrEnum):
    """A kind of process that connects to Redis."""

    PUBLISHER = "publisher"  # a backend that submits, waits, lists, cancels, deletes
    READER = "reader"  # looks and waits, and changes nothing
    WORKER = "worker"
    WEBHOOKS = "webhooks"
    GATEWAY = "gateway"


def commands(role: Role, prefix: str, model: str = "*") -> list[Command]:
    """Every command that a role sends, itself or within a script, with a key of each kind."""
    own, callers_queue, queue = (
        f"{prefix}:acl",
        keys.callers_queue().within(prefix),
        keys.queue(model).within(prefix),
    )
    wake = keys.wake("acl").within(prefix)
    needed: list[Command] = [
        ("PING",),
        ("EVAL", "return 1", "0"),
        ("EVALSHA", "0", "0"),
        ("SCRIPT", "LOAD", "return 1"),
        ("TIME",),
        *_each("EXISTS HGETALL", own),
        *_each("HGET HMGET", own, "field"),
    ]
    # The model of a request that names none.
    choosing: list[Command] = [
        *_each("GET HKEYS", own),
        *_each("HEXISTS", own, "field"),
        *_each("ZCOUNT ZRANGEBYSCORE", own, "0", "0"),
    ]
    looking: list[Command] = [
        *choosing,
        *_each("ZRANGE LRANGE", own, "0", "0"),
        *_each("ZCARD SCARD", own),
        *_each("ZRANK ZSCORE", own, "member"),
        ("XINFO", "STREAM", own),
        # Metrics.
        ("XINFO", "GROUPS", own),
        ("SMEMBERS", own),
        ("XREAD", "COUNT", "1", "STREAMS", own, "0"),
        ("SUBSCRIBE", wake),
    ]
    # Moving a job into and out of its states, its event and its ticket.
    moving: list[Command] = [
        *_each("HSET HINCRBY", own, "field", "1"),
        *_each("HDEL HKEYS HEXISTS", own, "field"),
        *_each("ZADD", own, "1", "member"),
        *_each("ZREM ZSCORE SREM SISMEMBER", own, "member"),
        *_each("ZCARD SCARD", own),
        *_each("ZRANGE", own, "0", "0"),
        *_each("RPUSH", own, "member"),
        *_each("PEXPIRE", own, "1"),
        *_each("PTTL INCR", own),
        ("XADD", own, "MAXLEN", "~", "1", "*", "event", "body"),
        ("PUBLISH", wake, "body"),
        ("LPUSH", queue, "body"),
        ("LPUSH", callers_queue, "body"),
    ]
    submitting: list[Command] = [*moving, *choosing, ("HSETNX", own, "field", "1")]
    sweeping: list[Command] = [
        *moving,
        *_each("SMEMBERS", own),
        *_each("SRANDMEMBER", own, "1"),
        ("LLEN", queue),
        ("LLEN", callers_queue),
        ("ZRANGEBYSCORE", own, "0", "0"),
        ("XTRIM", own, "MINID", "~", "0"),
        ("SET", own, "1"),  # the turn to sweep
    ]
    match role:
        case Role.READER:
            needed += looking
        case Role.PUBLISHER | Role.GATEWAY:
            needed += [
                *looking,
                *submitting,
                *_each("DEL PERSIST", own),
                ("SET", own, "1"),
                ("ZREVRANGE", own, "0", "0"),
                *(("XGROUP", *words) for words in (
                    ("CREATE", own, "group", "$", "MKSTREAM"),
                    ("SETID", own, "group", "$"),
                    ("DELCONSUMER", own, "group", "consumer"),
                )),
                ("XPENDING", own, "group"),
                ("XREADGROUP", "GROUP", "group", "me", "STREAMS", own, ">"),
                ("XAUTOCLAIM", own, "group", "me", "1", "0-0"),
                ("XACK", own, "group", "0-0"),
            ]  # fmt: skip
            if role is Role.PUBLISHER:  # `maskq tenants`, `maskq models retire`
                needed.append(("SADD", own, "member"))
        case Role.WEBHOOKS:
            needed += [*sweeping, ("LTRIM", own, "0", "0")]
        case Role.WORKER:
            needed += [*submitting, *sweeping, ("SADD", own, "member")]
            needed += _each("ZREMRANGEBYSCORE", own, "0", "0")
            needed += _celery(prefix, model)
    return list(dict.fromkeys(needed))


def _celery(prefix: str, model: str) -> list[Command]:
    """What Celery and kombu send for a worker: messages, bindings, results of raw callers."""
    needed: list[Command] = [("MULTI",), ("EXEC",)]
    for queue in (keys.callers_queue().within(prefix), keys.queue(model).within(prefix)):
        needed += [
            ("BRPOP", queue, "1"),
            ("SADD", f"_kombu.binding.{queue}", "member"),
            ("SADD", f"_kombu.binding_permanent.{queue}", "member"),
        ]
    queue, result = keys.queue(model).within(prefix), "celery-task-meta-acl"
    return [
        *needed,
        ("LINDEX", queue, "0"),
        ("RPOP", queue),
        ("LPUSH", keys.refused().within(prefix), "body"),
        ("LTRIM", keys.refused().within(prefix), "0", "0"),
        ("GET", result),
        ("SETEX", result, "1", "body"),
        ("PUBLISH", result, "body"),
    ]


def _each(names: str, *arguments: str) -> Iterable[Command]:
    return ((name, *arguments) for name in names.split())


def refuse_unfit(ledger: Ledger, role: Role, model: str = "*") -> None:
    """Raise CannotStart for what `check` finds. An unreachable Redis is only logged."""
    try:
        check(ledger, role, model)
    except InvalidRequest as error:
        raise CannotStart(str(error)) from error
    except StoreUnavailable as error:
        if error.code is not FailureCode.STORE_UNAVAILABLE:
            raise CannotStart(str(error)) from error
        logger.warning("%s", error)


def await_met(ledger: Ledger, role: Role, model: str, pause: Callable[[float], object]) -> None:
    """Return when Redis can serve the role; wait while it is unreachable.

    `pause` lets seconds pass, and may raise to end the waiting. Raises as `check` does for what waiting
    does not change, and InvalidRequest for a replica that stays one.
    """
    replica_since: float | None = None
    while True:
        try:
            return check(ledger, role, model)
        except StoreUnavailable as error:
            if error.code is not FailureCode.STORE_UNAVAILABLE:
                raise
            is_replica = isinstance(error.__cause__, Interrupted) and error.__cause__.moved
            replica_since = (replica_since or time.monotonic()) if is_replica else None
            if replica_since and time.monotonic() - replica_since > _REPLICA_S:
                raise InvalidRequest(
                    f"Redis at {ledger.place} has been a replica, which takes no writes, for "
                    f"{_REPLICA_S:g} s; {NAME} must lead to the primary"
                ) from error
            logger.warning("%s; trying again", error)
        pause(_PAUSE_S)


def check(ledger: Ledger, role: Role, model: str = "*") -> None:
    """Whether this Redis can serve a role, now.

    Raises StoreUnavailable for one that is away, or no primary for the moment; and InvalidRequest, or
    StoreUnavailable with another code than STORE_UNAVAILABLE, for what no waiting will change.
    """
    place = ledger.place
    said = _hello(ledger)
    version = said.get("version", "")
    if (mode := said.get("mode", "standalone")) != "standalone":
        what = "a Sentinel: write sentinel://" if mode == "sentinel" else "a Redis Cluster"
        raise InvalidRequest(f"Redis at {place} is {what}; {NAME} leads to a single primary")
    if version and numbers(version) < OLDEST:
        raise _too_old(place, version)
    needed = commands(role, ledger.prefix, model)
    words = [word for command in needed for word in (str(len(command)), *command)]
    try:
        denied: Sequence[int] = ledger.run(Call(None, ("EVAL", _DENIED, 0, *words), list))
    except StoreUnavailable as error:
        if "near '#'" in str(error):  # the first line of our scripts
            raise _too_old(place, version or "older") from error
        raise
    if denied:
        missing = _grants([needed[number - 1] for number in denied], ledger.prefix)
        raise InvalidRequest(
            f"Redis at {place} does not allow user {ledger.user!r} what a {role.value} needs: "
            f"{missing}; grant it with ACL SETUSER ({_DOCS})"
        )


def _hello(ledger: Ledger) -> dict[str, Any]:
    """What the server says of itself; empty if the ACL forbids HELLO."""
    try:
        return ledger.run(Call(None, ("HELLO",), pairs))
    except StoreUnavailable as error:
        if isinstance(error.__cause__, ResponseError):
            return {}
        raise


def _too_old(place: str, version: str) -> InvalidRequest:
    oldest = ".".join(map(str, OLDEST))
    return InvalidRequest(f"Redis at {place} is {version}: {oldest} or newer, or Valkey, is needed")


def numbers(version: str) -> tuple[int, ...]:
    """The first two parts of a version."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def name_of(command: Command) -> str:
    """The command's name in an ACL."""
    name = command[0].lower()
    return f"{name}|{command[1].lower()}" if name in ("script", "xinfo", "xgroup") else name


def _grants(denied: Iterable[Command], prefix: str) -> str:
    """ACL rules: the missing commands by their keys or channels."""
    by_target: dict[str, list[str]] = {}
    for command in denied:
        name = name_of(command)
        sign = "&" if name in ("publish", "subscribe") else "~"
        keyed = [word for word in command[1:] if word.startswith((prefix, "_kombu", "celery"))]
        target = f" {sign}{keyed[0].removesuffix('acl')}" if keyed else ""
        if target.endswith((":", "-")):
            target += "*"
        by_target.setdefault(target, []).append(f"+{name}")
    return ", ".join(f"{' '.join(names)}{target}" for target, names in by_target.items())
