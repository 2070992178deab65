"""Every variable that some part of maskq reads is known to all of them; any other is a mistake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from maskq.errors import InvalidRequest
from maskq.settings import KNOWN, PREFIX, Settings
from maskq_gateway.settings import GatewaySettings
from maskq_worker.settings import WorkerSettings
from maskq_worker.webhooks import WebhookSettings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("settings", [WorkerSettings, WebhookSettings, GatewaySettings])
def test_what_one_reads_the_others_let_pass(settings: type[Settings]) -> None:
    assert set(settings.model_fields) <= KNOWN


@pytest.mark.parametrize("file", ["docker-compose.yml", "README.md", "Dockerfile"])
def test_what_a_file_of_ours_names_is_known(file: str) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]+", (ROOT / file).read_text()))
    assert named
    assert {name.removeprefix(PREFIX).lower() for name in named} <= KNOWN


@pytest.mark.parametrize("url", ["example.com/hook", "ftp://example.com/hook", "https://"])
def test_a_deployment_s_webhook_is_a_url(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_WEBHOOK_URL", url)
    with pytest.raises(InvalidRequest, match="MASKQ_WEBHOOK_URL"):
        Settings.load()
    with pytest.raises(ValidationError):
        Settings(webhook_url=url)
