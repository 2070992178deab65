"""Options of a job have one home: whatever takes options is made from `JobOptions`."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tools.reference.options import page

from maskq import Client, InvalidRequest, cli
from maskq.cli.option_flags import options_of
from maskq.client.requests import build
from maskq.contract import SegmentRequest
from maskq.contract.options import BY_KEYWORD, OPTIONS, PER_IMAGE, JobOptions, Options

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "options.md"


@pytest.mark.slow
@pytest.mark.parametrize("script", ["one_option_more.py", "one_output_more.py"])
def test_what_one_file_of_the_contract_adds_appears_everywhere(script: str) -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / "tests" / "support" / script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    shown = json.loads(ran.stdout)
    assert [place for place, is_shown in shown.items() if not is_shown] == []


def test_the_keywords_for_type_checkers_are_those_of_the_model() -> None:
    assert set(Options.__annotations__) == set(BY_KEYWORD)
    for keyword, annotation in Options.__annotations__.items():
        takes_none = annotation.__forward_arg__.endswith("| None")
        assert takes_none == (BY_KEYWORD[keyword].default is None), keyword


def test_every_option_has_a_meaning_and_a_name_of_its_own() -> None:
    assert all(option.meaning.endswith(".") for option in OPTIONS)
    assert len({option.keyword for option in OPTIONS}) == len(OPTIONS)
    assert len({option.flag for option in OPTIONS}) == len(OPTIONS)


def test_the_page_is_what_the_contract_says() -> None:
    command = ".venv/bin/python -m tools.options_reference > docs/reference/options.md"
    assert PAGE.read_text(encoding="utf-8") == page(), f"write it anew: {command}"


def test_the_order_of_fields_stays_because_fingerprints_depend_on_it() -> None:
    asked: dict[str, Any] = {
        "image_etag": "e", "output_urls": {"mask": "https://out.example/m"}, "max_attempts": 2,
        "webhook": "https://a.example", "metadata": {"a": "b"}, "queue_ttl_s": 1, "tenant": "acme",
    }  # fmt: skip
    request = SegmentRequest(image_uri="s3://bucket/key", **asked)
    assert list(json.loads(request.wire())) == [
        "image_uri", "image_etag", "tenant", "output_urls", "webhook", "metadata", "queue_ttl_s",
        "max_attempts",
    ]  # fmt: skip


@pytest.mark.parametrize("fields", [{"classes": ["sky"], "outputs": ["logits"]}, {"grain": 1}])
def test_options_are_checked_without_an_image(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JobOptions.model_validate(fields)


def test_options_of_one_image_are_keywords_but_no_flags() -> None:
    assert {"image_version_id", "image_etag", "output_urls"} == PER_IMAGE
    assert set(inspect.signature(Client.submit).parameters) > PER_IMAGE


def flags(**given: Any) -> dict[str, Any]:
    """What typer passes to a command."""
    signature = inspect.signature(cli.submit.submit)
    return {name: one.default for name, one in signature.parameters.items()} | given


def test_flags_become_the_options_that_they_name() -> None:
    given = flags(
        outputs=["mask", "overlay"], classes=["sky"], overlay_legend=True, metadata=["a=b=c"],
        webhook="https://a.example", webhook_events=["job.failed"], queue_ttl=5.0,
    )  # fmt: skip
    request = build("s3://bucket/key", options_of(given))
    assert (request.outputs, request.classes) == ({"mask", "overlay"}, {"sky"})
    assert (request.overlay_legend, request.metadata) == (True, {"a": "b=c"})
    assert (request.webhook, request.webhook_events) == ("https://a.example", {"job.failed"})
    assert request.queue_ttl_s == 5.0


def test_no_flags_ask_for_the_defaults() -> None:
    plain = SegmentRequest(image_uri="s3://bucket/key")
    assert build("s3://bucket/key", options_of(flags())) == plain


def test_metadata_without_an_equals_sign_is_refused_by_its_flag() -> None:
    with pytest.raises(InvalidRequest, match="--metadata 'a' is not NAME=VALUE"):
        options_of(flags(metadata=["a"]))
