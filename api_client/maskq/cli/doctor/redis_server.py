"""Redis: reachable, new enough, keeps what it accepts, evicts nothing, answers fast."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Final

from maskq.cli.doctor.check import (
    REACHES_REDIS,
    Check,
    Finding,
    Level,
    Target,
    ok,
    trouble,
    unknown,
    warning,
)
from maskq.cli.doctor.redis_facts import facts
from maskq.errors import InvalidRequest, MaskqError, StoreUnavailable
from maskq.ledger import Ledger, RedisUrl
from maskq.ledger.calls import Call
from maskq.ledger.connections import requirements

_PING: Final[Call[object]] = Call(None, ("PING",), lambda answer: answer)
_TIME: Final[Call[float]] = Call(None, ("TIME",), lambda t: int(t[0]) + int(t[1]) / 1e6)
_PINGS: Final = 20
_SLOW_MS: Final = 10.0
_OFFSET_S: Final = 5.0
_FULL: Final = 0.9
_LOOPBACK: Final = ("127.", "::1", "localhost")
_AS_ADMIN: Final = (
    "run `maskq doctor` with a MASKQ_REDIS_URL whose user may call INFO and CONFIG GET"
)
_NEEDED: Final = ".".join(map(str, requirements.OLDEST))
Facts = Mapping[str, str]


class RedisCheck(Check):
    area = "Redis"
    roles = REACHES_REDIS

    def run(self, target: Target) -> Iterator[Finding]:
        try:
            url = RedisUrl.of(target.settings)
        except InvalidRequest as error:
            yield trouble("reachable", str(error), "correct MASKQ_REDIS_URL (docs/redis.md)")
            return
        yield _encryption(url)
        with closing(Ledger(url, target.settings.key_prefix)) as ledger:
            yield from self._of_server(ledger, target)

    def _of_server(self, ledger: Ledger, target: Target) -> Iterator[Finding]:
        try:
            ledger.run(_PING)
        except MaskqError as error:
            yield _unreachable(error)
            yield unknown(
                "server", "version, durability, memory, rights, latency and clock: not checked"
            )
            return
        yield ok("reachable", f"{ledger.place} answers user {ledger.user!r}")
        found = facts(ledger)
        if (version := _version(found)).level is Level.TROUBLE:
            yield version
            yield unknown("server", "durability, memory, rights, latency and clock: not checked")
            return
        for check in _OF_FACTS:
            yield check(found)
        yield _rights(ledger, target)
        yield _latency(ledger)
        yield _clock(ledger)


def _unreachable(error: MaskqError) -> Finding:
    lasts = isinstance(error, StoreUnavailable) and error.code != StoreUnavailable.code
    do = (
        "correct user and password in MASKQ_REDIS_URL"
        if lasts
        else "start Redis, or correct MASKQ_REDIS_URL"
    )
    return trouble("reachable", str(error), do)


def _encryption(url: RedisUrl) -> Finding:
    hosts = [host for host, _ in url.hosts]
    if url.tls is not None:
        return ok("encryption", "TLS")
    if all(host.startswith(_LOOPBACK) for host in hosts):
        return ok("encryption", "none, and the connection stays on this machine")
    return warning(
        "encryption",
        "none: passwords and jobs cross the network in clear text",
        "use a rediss:// URL in MASKQ_REDIS_URL, unless the network itself is encrypted",
    )


def _version(found: Facts) -> Finding:
    version = found.get("version") or found.get("redis_version", "")
    if not version:
        return unknown("version", "the user may call neither HELLO nor INFO", _AS_ADMIN)
    name = found.get("server", "redis")
    if requirements.numbers(version) < requirements.OLDEST:
        return trouble(
            "version", f"{name} {version}", f"upgrade Redis to {_NEEDED} or newer, or to Valkey"
        )
    return ok("version", f"{name} {version}")


def _role(found: Facts) -> Finding:
    mode, role = found.get("mode", "standalone"), found.get("role", "")
    if mode != "standalone":
        return trouble(
            "primary", f"the server is a {mode}", "see docs/redis.md: a single primary, or Sentinel"
        )
    if not role:
        return unknown("primary", "the user may call neither HELLO nor INFO", _AS_ADMIN)
    if role in ("replica", "slave"):
        return trouble("primary", "the server is a replica", "point MASKQ_REDIS_URL to the primary")
    return ok("primary", "takes writes")


def _durability(found: Facts) -> Finding:
    is_on = found.get("appendonly") or {"1": "yes", "0": "no"}.get(found.get("aof_enabled", ""), "")
    if not is_on:
        return unknown("durability", "the user may not call INFO or CONFIG GET", _AS_ADMIN)
    if is_on == "no":
        return trouble(
            "durability",
            "appendonly is no: a restart of Redis loses accepted jobs",
            "CONFIG SET appendonly yes, and the same in redis.conf; a managed service: turn AOF on",
        )
    fsync = found.get("appendfsync", "")
    if fsync == "no":
        return warning(
            "durability",
            "appendfsync is no: a power failure loses what the system had not written, some 30 s",
            "CONFIG SET appendfsync everysec, and the same in redis.conf",
        )
    return ok("durability", f"AOF{f', appendfsync {fsync}' if fsync else ''}")


def _eviction(found: Facts) -> Finding:
    policy = found.get("maxmemory-policy") or found.get("maxmemory_policy", "")
    if not policy:
        return unknown("memory policy", "the user may not call INFO or CONFIG GET", _AS_ADMIN)
    if policy != "noeviction":
        return trouble(
            "memory policy",
            f"maxmemory-policy is {policy}: a full Redis silently drops jobs",
            "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
        )
    return ok("memory policy", "noeviction")


def _memory(found: Facts) -> Finding:
    used, most = found.get("used_memory", ""), found.get("maxmemory", "")
    if not used or not most:
        return unknown("memory", "the user may not call INFO", _AS_ADMIN)
    if most == "0":
        return warning(
            "memory",
            f"{_mib(used)} in use, and no limit: the system may kill Redis before it refuses jobs",
            "CONFIG SET maxmemory to what the machine has to spare (docs/redis.md)",
        )
    if int(used) > _FULL * int(most):
        return warning(
            "memory",
            f"{_mib(used)} of {_mib(most)} in use",
            "raise maxmemory, or lower MASKQ_RETENTION_S",
        )
    return ok("memory", f"{_mib(used)} of {_mib(most)} in use")


_OF_FACTS: Final[tuple[Callable[[Facts], Finding], ...]] = (
    _version, _role, _durability, _eviction, _memory,
)  # fmt: skip


def _rights(ledger: Ledger, target: Target) -> Finding:
    role = requirements.Role(target.role.value)
    try:
        requirements.check(ledger, role)
    except MaskqError as error:
        return trouble("rights", str(error), "give the user its line of deploy/redis/users.acl")
    return ok("rights", f"user {ledger.user!r} may do what a {role.value} needs")


def _latency(ledger: Ledger) -> Finding:
    times_ms = []
    for _ in range(_PINGS):
        began = time.perf_counter()
        ledger.run(_PING)
        times_ms.append(1000 * (time.perf_counter() - began))
    median = statistics.median(times_ms)
    found = f"median {median:.1f} ms, slowest {max(times_ms):.1f} ms of {_PINGS} calls"
    if median > _SLOW_MS:
        return warning(
            "latency", f"{found}: each job takes several calls", "place this process near Redis"
        )
    return ok("latency", found)


def _clock(ledger: Ledger) -> Finding:
    before = time.time()
    theirs = ledger.run(_TIME)
    offset_s = theirs - (before + time.time()) / 2
    found = f"{offset_s:+.1f} s from this machine's"
    if abs(offset_s) > _OFFSET_S:
        return warning(
            "clock",
            f"Redis' clock is {found}",
            "synchronise both clocks (chrony, systemd-timesyncd)",
        )
    return ok("clock", found)


def _mib(number: str) -> str:
    return f"{int(number) / 2**20:.0f} MiB"
