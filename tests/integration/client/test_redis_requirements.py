"""What is needed of Redis is looked for at start; what is only liked is done without."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import redis
from support import acl
from support.answering import answering
from support.redis_servers import Sentinel, TunedRedis, follow, running

from maskq.contract import FailureCode
from maskq.errors import InvalidRequest, StoreUnavailable
from maskq.ledger import Ledger, calls
from maskq.ledger.connections import requirements
from maskq.ledger.connections.requirements import Role
from maskq_standalone.ports import free_port

# Granted for comfort, for deleting groups of readers (users made from an earlier file lack it), or for
# a part of Celery's that only some callers use.
LIKED = {
    *("select", "hello", "client|setname"),
    *("waitaof", "subscribe", "unsubscribe", "xgroup|destroy"),
    *("smembers", "zcount", "expire", "del", "mget", "incrby"),  # chains and chords of raw callers
}
PREFIX = "maskq"


@pytest.fixture
def admin(redis_url: str) -> Iterator[redis.Redis]:
    acl.create(redis_url)
    with redis.Redis.from_url(redis_url, decode_responses=True, protocol=2) as client:
        yield client
        for user in acl.users():
            client.acl_deluser(user) if user != "default" else None


def check(url: str, role: Role, prefix: str = PREFIX) -> None:
    ledger = Ledger(url, prefix)
    try:
        requirements.check(ledger, role, "demo")
    finally:
        ledger.close()


@pytest.mark.parametrize("role", Role)
def test_the_documented_users_may_do_what_their_role_needs(
    admin: redis.Redis, redis_url: str, role: Role
) -> None:
    check(acl.url_of(role.value, redis_url), role)
    with pytest.raises(InvalidRequest, match="~other"):
        check(acl.url_of(role.value, redis_url), role, prefix="other")


@pytest.mark.parametrize("role", [Role.WORKER, Role.PUBLISHER, Role.READER])
def test_the_rights_for_a_shadow_deployment_are_those_that_docs_shadow_md_names(
    admin: redis.Redis, redis_url: str, role: Role
) -> None:
    text = (acl.FILE.parents[2] / "docs" / "shadow.md").read_text(encoding="utf-8")
    (rights,) = re.findall(r"`(~maskq-shadow:\* [^`]+)`", text)
    admin.acl_deluser("shadow")
    rules = acl.users()[role.value]
    admin.execute_command("ACL", "SETUSER", "shadow", "reset", *rules, ">shadow", *rights.split())
    try:
        for prefix in (PREFIX, "maskq-shadow"):  # beside their own
            check(acl.url_of("shadow", redis_url), role, prefix)
        with pytest.raises(InvalidRequest, match="~maskq-shadow"):
            check(acl.url_of(role.value, redis_url), role, "maskq-shadow")
    finally:
        admin.acl_deluser("shadow")


@pytest.mark.parametrize("role", Role)
def test_the_documented_users_may_do_no_more(role: Role) -> None:
    granted = {rule[1:] for rule in acl.users()[role.value] if rule.startswith("+")}
    needed = {requirements.name_of(command) for command in requirements.commands(role, PREFIX)}
    assert needed <= granted
    assert granted - needed <= LIKED


def test_the_table_has_every_command_of_every_script() -> None:
    scripts = (files("maskq.ledger") / "lua").iterdir()
    sent = {
        name.lower()
        for script in scripts
        for name in re.findall(r"redis\.p?call\('([A-Z]+)'", script.read_text())
    }
    every = {command for role in Role for command in requirements.commands(role, PREFIX)}
    assert sent <= {command[0].lower() for command in every}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("-xadd", "+xadd ~maskq:*"),
        ("-script|load", "+script|load"),
        ("-evalsha", "+evalsha"),
        ("-eval", "eval"),
        ("resetchannels", "+publish &maskq:wake:*"),
    ],
)
def test_a_missing_right_is_named_as_it_is_granted(
    admin: redis.Redis, redis_url: str, rule: str, said: str
) -> None:
    admin.execute_command("ACL", "SETUSER", "worker", rule)
    with pytest.raises((InvalidRequest, StoreUnavailable)) as refused:
        check(acl.url_of("worker", redis_url), Role.WORKER)
    assert said in str(refused.value)
    assert "docs/redis.md" in str(refused.value)
    assert refused.value.code is not FailureCode.STORE_UNAVAILABLE


def test_a_user_without_dangerous_commands_can_do_everything(
    admin: redis.Redis, redis_url: str
) -> None:
    """No INFO, no CONFIG, no ROLE."""
    admin.execute_command(
        "ACL", "SETUSER", "plain", "reset", "on", ">plain", "~*", "&*", "+@all", "-@dangerous"
    )
    url = acl.url_of("plain", redis_url)
    for role in Role:
        check(url, role)
    ledger = Ledger(url, "plain")
    assert ledger.run(calls.sweep(lease_s=5)).swept == 1
    ledger.close()
    admin.acl_deluser("plain")


def test_a_refusal_within_a_script_is_no_outage(admin: redis.Redis, redis_url: str) -> None:
    admin.execute_command("ACL", "SETUSER", "publisher", "-hset")
    ledger = Ledger(acl.url_of("publisher", redis_url), PREFIX)
    with pytest.raises(StoreUnavailable, match=r"does not allow user 'publisher'.*hset") as refused:
        ledger.run(calls.cancel(_a_job(admin)))
    assert refused.value.code is FailureCode.ACCESS_DENIED
    ledger.close()


def _a_job(admin: redis.Redis) -> str:
    fields = {
        "status": "queued",
        "request": "{}",
        "retention_ms": 9,
        "model": "m",
        "priority": "low",
    }
    admin.hset(f"{PREFIX}:job:x", mapping=fields)
    return "x"


def test_a_sentinel_and_a_cluster_are_refused(tmp_path: Path) -> None:
    primary = TunedRedis(tmp_path / "redis")
    clustered = TunedRedis(
        tmp_path / "cluster", "cluster-enabled yes", f"cluster-port {free_port()}"
    )
    sentinel = Sentinel(tmp_path / "sentinel", primary)
    with running(primary, clustered, sentinel):
        with pytest.raises(InvalidRequest, match="is a Sentinel: write sentinel://"):
            check(f"redis://127.0.0.1:{sentinel.port}", Role.WORKER)
        with pytest.raises(InvalidRequest, match="is a Redis Cluster"):
            check(clustered.url, Role.WORKER)


def test_a_replica_is_waited_for_and_refused_if_it_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, replica = TunedRedis(tmp_path / "a"), TunedRedis(tmp_path / "b")
    with running(primary, replica):
        follow(replica, primary)
        with pytest.raises(StoreUnavailable, match="not the primary now") as away:
            check(replica.url, Role.WORKER)
        assert away.value.code is FailureCode.STORE_UNAVAILABLE
        monkeypatch.setattr(requirements, "_REPLICA_S", 0.5)
        ledger = Ledger(replica.url, PREFIX)
        pauses: list[float] = []
        with pytest.raises(InvalidRequest, match="must lead to the primary"):
            requirements.await_met(ledger, Role.WORKER, "demo", pauses.append)
        assert pauses
        ledger.close()


@pytest.mark.parametrize("says_so", [True, False], ids=["by HELLO", "by its Lua"])
def test_a_redis_that_is_too_old_is_refused(says_so: bool) -> None:
    hello = b"*4\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n"
    unknown = b"-ERR unknown command `HELLO`\r\n"
    old = (
        b"-ERR Error compiling script (new function): user_script:1: unexpected symbol near '#'\r\n"
    )
    with (
        answering({b"HELLO": hello if says_so else unknown, b"EVAL": old}) as port,
        pytest.raises(InvalidRequest, match=r"7\.0 or newer, or Valkey, is needed"),
    ):
        check(f"redis://127.0.0.1:{port}", Role.WORKER)


def test_a_server_takes_the_file_as_it_is(tmp_path: Path) -> None:
    """One that does not would end at once."""
    file = acl.FILE.read_text().replace("user default off", "user default on >secret ~* &* +@all")
    (tmp_path / "users.acl").write_text(file)
    server = TunedRedis(tmp_path, f"aclfile {tmp_path}/users.acl", password="secret")
    with running(server):
        check(
            acl.url_of("reader", server.url).replace("reader:reader", "reader:CHANGE-ME"),
            Role.READER,
        )
