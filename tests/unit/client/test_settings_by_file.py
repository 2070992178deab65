"""MASKQ_X_FILE: any setting may be given as a file that holds its value."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maskq import environment, webhooks
from maskq.errors import InvalidRequest
from maskq.settings import PREFIX, Settings, known
from maskq_gateway.settings import GatewaySettings
from maskq_standalone.commands import up
from maskq_standalone.stack import Stack
from maskq_worker.settings import WorkerSettings
from maskq_worker.webhooks import WebhookSettings

URL = "redis://worker:s%2Fecret@redis:6379/0"
EXAMPLES = {
    "redis_url": URL,
    "max_queued": "7",
    "allowed_buckets": "a, b",
    "webhook_retries_s": "1,2",
    "trigger_tokens": "the-first-trigger-token,the-second-trigger-token",
    "webhook_secret": webhooks.new_secret(),
}


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sets MASKQ_NAME_FILE to a file with this content."""

    def give(setting: str, content: str | bytes) -> Path:
        file = tmp_path / setting
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        monkeypatch.setenv(f"{PREFIX}{setting.upper()}_FILE", str(file))
        return file

    return give


@pytest.mark.parametrize("settings", [Settings, WorkerSettings, WebhookSettings, GatewaySettings])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_file_says_the_same_as_the_variable(
    settings: type[Settings], end: str, given, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for setting, text in EXAMPLES.items():
            patch.setenv(f"{PREFIX}{setting.upper()}", text)
        expected = settings.load()
    for setting, text in EXAMPLES.items():
        given(setting, text + end)
    assert settings.load() == expected
    assert expected.redis_url.get_secret_value() == URL


@pytest.mark.parametrize("setting", sorted(WorkerSettings.model_fields))
def test_every_setting_may_be_a_file(setting: str, given) -> None:
    """Unreadable contents are refused by the name of the variable that was set, and not shown."""
    given(setting, b"Xq7\xff")
    with pytest.raises(InvalidRequest, match=f"^MASKQ_{setting.upper()}_FILE: ") as raised:
        WorkerSettings.load()
    assert "Xq7" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_name_that_ends_in_file_stays_what_it_is(monkeypatch: pytest.MonkeyPatch, given) -> None:
    monkeypatch.setenv("MASKQ_REDIS_CA_FILE", "/etc/ssl/ca.pem")
    monkeypatch.setenv("MASKQ_HEALTH_FILE", "/tmp/healthy")
    assert WorkerSettings.load().redis_ca_file == Path("/etc/ssl/ca.pem")
    monkeypatch.delenv("MASKQ_REDIS_CA_FILE")
    given("redis_ca_file", "/etc/ssl/other.pem\n")
    assert WorkerSettings.load().redis_ca_file == Path("/etc/ssl/other.pem")


@pytest.mark.parametrize("settings", [Settings, WorkerSettings, WebhookSettings, GatewaySettings])
def test_both_are_refused(settings: type[Settings], given, monkeypatch: pytest.MonkeyPatch) -> None:
    given("webhook_secret", "whsec_Xq7")
    monkeypatch.setenv("MASKQ_WEBHOOK_SECRET", "whsec_Xq7")
    expected = "MASKQ_WEBHOOK_SECRET and MASKQ_WEBHOOK_SECRET_FILE are both set: unset one of them"
    with pytest.raises(InvalidRequest) as raised:
        settings.load()
    assert str(raised.value) == expected
    with pytest.raises(InvalidRequest, match="both set"):
        webhooks.verify({}, b"")
    given("max_queued", "7")
    monkeypatch.setenv("MASKQ_MAX_QUEUED", "7")
    with pytest.raises(ValueError, match="max_queued"):  # made without load(), too
        settings()


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_one_of_the_two_is_not_set(
    empty: str, given, monkeypatch: pytest.MonkeyPatch
) -> None:
    given("max_queued", "7")
    monkeypatch.setenv("MASKQ_MAX_QUEUED", empty)
    assert Settings.load().max_queued == 7
    monkeypatch.setenv("MASKQ_MAX_QUEUED", "8")
    monkeypatch.setenv("MASKQ_MAX_QUEUED_FILE", empty)
    assert Settings.load().max_queued == 8


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"a\0b", "is not a text file"),
        (b"\xff", "is not a text file in UTF-8"),
        (b"x" * 70_000, "has more than 65536 bytes"),
    ],
)
def test_a_file_that_cannot_be_a_value(content: bytes, said: str, given) -> None:
    file = given("redis_url", content)
    with pytest.raises(InvalidRequest) as raised:
        Settings.load()
    assert str(raised.value) == f"MASKQ_REDIS_URL_FILE: {str(file)!r} {said}"


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/proc/self", "/dev/zero"])
def test_a_file_that_cannot_be_read(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_REDIS_URL_FILE", path)
    with pytest.raises(InvalidRequest, match=f"^MASKQ_REDIS_URL_FILE: .*'{path}'") as raised:
        Settings.load()
    assert "\n" not in str(raised.value)


def test_a_wrong_value_is_not_shown(given) -> None:
    """Of a file that was named by mistake nothing is known: it may hold a key."""
    given("max_queued", "-----BEGIN PRIVATE KEY----- Xq7")
    with pytest.raises(InvalidRequest, match=r"^MASKQ_MAX_QUEUED_FILE: ") as raised:
        Settings.load()
    assert "Xq7" not in str(raised.value)


def test_what_the_program_says_needs_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_REDIS_URL_FILE", "/nowhere")
    assert Settings.load(redis_url=URL).redis_url.get_secret_value() == URL


def test_another_role_s_file_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client in a shared environment may lack the right to."""
    monkeypatch.setenv("MASKQ_TRIGGER_TOKENS_FILE", "/nowhere")
    Settings.load()
    with pytest.raises(InvalidRequest, match="MASKQ_TRIGGER_TOKENS_FILE: cannot read"):
        GatewaySettings.load()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("MASKQ_REDS_URL_FILE", "MASKQ_REDIS_URL_FILE"),
        ("MASKQ_REDIS_URL_FIEL", "MASKQ_REDIS_URL"),
        ("MASKQ_WEBHOK_SECRET_FILE", "MASKQ_WEBHOOK_SECRET_FILE"),
    ],
)
def test_a_misspelled_name_is_an_error(
    wrong: str, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(wrong, "/nowhere")
    with pytest.raises(InvalidRequest) as raised:
        Settings.load()
    assert str(raised.value) == f"{wrong} is not a setting of maskq; did you mean {right}?"


# --- readers other than Settings, and child processes -----------------------------------------------


def test_a_receiver_reads_its_secret_from_a_file(given) -> None:
    given("webhook_secret", EXAMPLES["webhook_secret"] + "\n")
    with pytest.raises(webhooks.WebhookRefused, match="header"):  # not: no secret is given
        webhooks.verify({}, b"")


def test_a_child_gets_the_change_alone() -> None:
    before = {"MASKQ_MODEL_FILE": "/f", "MASKQ_REDIS_URL_FILE": "/u", "X_FILE": "/x", "PATH": "p"}
    after = environment.laid_over(before, {"MASKQ_MODEL": "demo", "X": "x"})
    assert after == {
        "MASKQ_MODEL": "demo", "MASKQ_REDIS_URL_FILE": "/u", "X_FILE": "/x", "X": "x", "PATH": "p",
    }  # fmt: skip


def test_a_stack_reads_files_for_its_children(given, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its own Redis and S3 it takes no notice of what the environment says."""
    given("max_queued", "7\n")
    given("model", "elsewhere")
    monkeypatch.setenv("MASKQ_REDIS_URL_FILE", "/nowhere")
    monkeypatch.setenv("MASKQ_STACK_REDIS_SERVER_FILE", "/nowhere")
    passed_on = Stack(model="demo")._env  # what the children get
    assert passed_on == {"MASKQ_MAX_QUEUED": "7", "MASKQ_MODEL": "demo"}
    assert environment.setting_of("MASKQ_STACK_REDIS_SERVER_FILE", known()) == "stack_redis_server"


def test_up_allows_the_receivers_that_a_file_names(given, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}

    class Seen(Exception):
        pass

    def stack(*_: object, **options: Any) -> None:
        seen.update(options["env"])
        raise Seen

    given("webhook_allowed_hosts", "hooks.internal\n")
    monkeypatch.setattr(up, "Stack", stack)
    with pytest.raises(Seen):
        up.run()
    assert seen == {"MASKQ_WEBHOOK_ALLOWED_HOSTS": "hooks.internal"}


ROLES = {
    "worker": ["maskq_worker"],
    "webhooks": ["maskq_worker.webhooks"],
    "gateway": ["maskq", "gateway"],
    "sqs": ["maskq", "trigger", "sqs"],
    "supervisor": ["maskq", "worker"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "fault"), [*((role, "both") for role in ROLES), ("gateway", "unreadable")]
)
def test_every_role_refuses_with_78_and_one_line(role: str, fault: str, tmp_path: Path) -> None:
    env = {name: text for name, text in os.environ.items() if not name.startswith("MASKQ_")}
    env["MASKQ_REDIS_URL_FILE"] = str(tmp_path / "url")
    if fault == "both":
        env["MASKQ_REDIS_URL"] = URL
    said = subprocess.run(
        [sys.executable, "-m", *ROLES[role]], env=env, capture_output=True, text=True, timeout=60
    )
    assert said.returncode == 78, said.stderr
    assert said.stderr.count("\n") == 1, said.stderr
    assert "MASKQ_REDIS_URL_FILE" in said.stderr
    assert "s%2Fecret" not in said.stderr
