"""deploy/compose/credentials.py: the passwords that docker-compose.yml's first start makes."""

from __future__ import annotations

import configparser
import importlib.util
import json
import stat
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from support.redis_servers import TunedRedis, running

from maskq import webhooks

ROOT = Path(__file__).parents[3]
ROLES = ("publisher", "reader", "worker", "webhooks", "gateway", "celery")


@pytest.fixture
def credentials(tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "compose_credentials", ROOT / "deploy/compose/credentials.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.SECRETS = tmp_path / "secrets"
    return module


def contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_a_second_start_changes_no_password(credentials: ModuleType) -> None:
    credentials.make()
    before = contents(credentials.SECRETS)
    credentials.make()
    assert contents(credentials.SECRETS) == before
    modes = {stat.S_IMODE(file.stat().st_mode) for file in credentials.SECRETS.rglob("*.*")}
    assert modes == {0o444}


def test_no_password_serves_twice(credentials: ModuleType) -> None:
    credentials.make()
    urls = [(credentials.SECRETS / role / "redis-url").read_text() for role in ROLES]
    keys = json.loads((credentials.SECRETS / "s3" / "s3.json").read_text())["identities"]
    found = [urlsplit(url).password for url in urls]
    found += [(credentials.SECRETS / "redis" / name).read_text() for name in ("admin", "health")]
    found += [one["credentials"][0]["secretKey"] for one in keys]
    found.append((credentials.SECRETS / "gateway" / "trigger-token").read_text())
    assert len(set(found)) == len(found) == 14
    assert all(len(password) >= 32 for password in found)


def test_a_role_s_volume_holds_its_own_passwords(credentials: ModuleType) -> None:
    credentials.make()
    found = {
        role: sorted(file.name for file in (credentials.SECRETS / role).iterdir()) for role in ROLES
    }
    assert found == {
        "publisher": ["aws", "redis-url", "webhook-secret"],
        "reader": ["aws", "redis-url"],
        "worker": ["aws", "redis-url"],
        "webhooks": ["redis-url", "webhook-secret"],
        "gateway": ["aws", "redis-url", "trigger-token"],
        "celery": ["redis-url"],
    }
    secret = (credentials.SECRETS / "webhooks" / "webhook-secret").read_text()
    assert webhooks.keys_of(secret)
    assert secret == (credentials.SECRETS / "publisher" / "webhook-secret").read_text()
    parser = configparser.ConfigParser()
    parser.read(credentials.SECRETS / "worker" / "aws")
    identities = json.loads((credentials.SECRETS / "s3" / "s3.json").read_text())["identities"]
    (own,) = (one["credentials"][0] for one in identities if one["name"] == "worker")
    assert parser["default"]["aws_secret_access_key"] == own["secretKey"]


def test_redis_takes_the_users_as_they_are_written(credentials: ModuleType, tmp_path: Path) -> None:
    credentials.make()
    users = credentials.SECRETS / "redis" / "users.acl"
    assert "CHANGE-ME" not in users.read_text()
    admin = (credentials.SECRETS / "redis" / "admin").read_text()
    server = TunedRedis(tmp_path / "redis", f"aclfile {users}")
    server.is_ready = lambda: True  # type: ignore[method-assign]  # its default user is off
    # redis-py would try a wrong password four times, with seconds in between.
    options = {"port": server.port, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
    with running(server):
        for role in ("health", *ROLES):
            password = (
                (credentials.SECRETS / "redis" / "health").read_text()
                if role == "health"
                else urlsplit((credentials.SECRETS / role / "redis-url").read_text()).password
            )
            with redis.Redis(**options, username=role, password=password) as user:
                assert user.ping()
                with pytest.raises(redis.exceptions.NoPermissionError):
                    user.flushall()
            with (
                redis.Redis(**options, username=role, password="change-me") as user,
                pytest.raises(redis.AuthenticationError),
            ):
                user.ping()
        with (
            redis.Redis(**options) as nobody,
            pytest.raises(redis.AuthenticationError),
        ):
            nobody.ping()
        with redis.Redis(**options, username="admin", password=admin) as operator:
            assert set(operator.acl_users()) == {"default", "admin", "health", *ROLES}


def test_a_celery_app_on_the_host_gets_its_own_user_and_no_key_of_the_store(
    credentials: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    credentials.make()
    credentials.show("celery", "6379", "8333")
    said = capsys.readouterr().out
    assert "MASKQ_REDIS_URL=redis://celery:" in said
    assert "AWS_ACCESS_KEY_ID" not in said


def test_a_program_on_the_host_gets_a_publisher_s_variables(
    credentials: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    credentials.make()
    credentials.show("publisher", "6380", "8334")
    said = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert said["MASKQ_REDIS_URL"].startswith("redis://publisher:")
    assert said["MASKQ_REDIS_URL"].endswith("@127.0.0.1:6380/0")
    assert said["MASKQ_S3_ENDPOINT_URL"] == "http://127.0.0.1:8334"
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MASKQ_WEBHOOK_SECRET"} <= said.keys()
