"""Every variable that some part of maskq reads is known to all of them; any other is a mistake."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from maskq import AsyncClient, Client, environment
from maskq.errors import InvalidRequest
from maskq.settings import PREFIX, Settings, known
from maskq_gateway.settings import GatewaySettings
from maskq_worker.settings import WorkerSettings
from maskq_worker.webhooks import WebhookSettings

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("settings", [WorkerSettings, WebhookSettings, GatewaySettings])
def test_what_one_reads_the_others_let_pass(settings: type[Settings]) -> None:
    assert set(settings.model_fields) <= known()


@pytest.mark.parametrize("file", ["docker-compose.yml", "Dockerfile"])
def test_what_a_file_of_ours_names_is_known(file: str) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]+", (ROOT / file).read_text()))
    assert named
    assert [name for name in named if environment.setting_of(name, known()) is None] == []


@pytest.mark.parametrize("url", ["example.com/hook", "ftp://example.com/hook", "https://"])
def test_a_deployment_s_webhook_is_a_url(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_WEBHOOK_URL", url)
    with pytest.raises(InvalidRequest, match="MASKQ_WEBHOOK_URL"):
        Settings.load()
    with pytest.raises(ValidationError):
        Settings(webhook_url=url)


@pytest.mark.parametrize("settings", [Settings, WorkerSettings, WebhookSettings, GatewaySettings])
def test_a_misspelled_override_is_an_error(settings: type[Settings]) -> None:
    with pytest.raises(InvalidRequest, match=r"s3_bukcet is not a setting.*did you mean s3_bucket"):
        settings.load(s3_bukcet="photos")
    with pytest.raises(ValidationError):
        settings(s3_bukcet="photos")


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_client_checks_what_it_is_given(client: type[Client] | type[AsyncClient]) -> None:
    with pytest.raises(InvalidRequest, match="did you mean s3_bucket"):
        client.from_env(s3_bukcet="photos")
    for wrong in (
        "redis://:password@somewhere",
        {"redis_url": "redis://x"},
        os.environ,
        b"x",
    ):
        with pytest.raises(InvalidRequest, match=r"Client\(redis_url=") as raised:
            client(wrong)  # type: ignore[arg-type]
        assert "password" not in str(raised.value)
    assert client().settings == Settings.load()


@pytest.mark.parametrize("value", ["", "  ", "\n"])
def test_an_empty_variable_is_not_set(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a compose file writes it: MASKQ_MODEL: ${MASKQ_MODEL:-}."""
    for name in set(WorkerSettings.model_fields) | set(GatewaySettings.model_fields):
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
    for settings in (Settings, WorkerSettings, WebhookSettings, GatewaySettings):
        assert settings.load() == settings.model_construct()


def test_white_space_around_a_value_is_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_MODEL", " demo\n")
    monkeypatch.setenv("MASKQ_REDIS_URL", "redis://host:1/0\n")
    monkeypatch.setenv("MASKQ_MAX_QUEUED", " 5 ")
    settings = Settings.load()
    assert (settings.model, settings.max_queued) == ("demo", 5)
    assert settings.redis_url.get_secret_value() == "redis://host:1/0"


def test_every_mistake_is_told_once_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_MAX_QUEUED", "many")
    monkeypatch.setenv("MASKQ_KEY_PREFIX", "a b")
    monkeypatch.setenv("MASKQ_WEBHOOK_URL", "https://user:Xq7@/")
    monkeypatch.setenv("MASKQ_WEBHOOK_RETRIES_S", "1,soon")
    monkeypatch.setenv("MASKQ_MODEL_NAME", "x" * 201)
    with pytest.raises(InvalidRequest) as raised:
        WebhookSettings.load(queue_ttl_s="long")
    text = str(raised.value)
    assert "\n" not in text
    assert "Xq7" not in text
    for name in (
        "MASKQ_MAX_QUEUED", "MASKQ_KEY_PREFIX", "MASKQ_WEBHOOK_URL", "MASKQ_WEBHOOK_RETRIES_S",
        "MASKQ_MODEL_NAME", "queue_ttl_s",
    ):  # fmt: skip
        assert text.count(f"{name}: ") == 1, name
    assert "MASKQ_QUEUE_TTL_S" not in text
    assert len(text) < 1000
