"""`maskq bench` against a real stack: what it prints adds up, and nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from acceptance.test_cli import maskq
from demo_scenes.scenes import draw
from support.damaged import damaged
from support.stack_jobs import jpeg

from maskq import Client
from maskq.cli.bench import percentile


def test_what_it_prints_adds_up_and_nothing_is_left(client: Client, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg(draw(8, size=(320, 240)).image))
    before = {record.id for record in client.list(limit=1000).records}

    arguments = ("bench", str(photo), "--jobs", "5", "--alone", "2", "--price-per-hour", "3.6")
    measured = json.loads(maskq(*arguments, "--json").stdout)

    together = measured["all at once"]
    assert together["price_per_million"] == pytest.approx(1000 / together["images_per_s"], rel=0.01)
    for each, jobs in ((measured["one at a time"], 2), (together, 5)):
        stages = dict(each["ms"])
        whole = stages.pop("submit to end")
        assert each["jobs"] == jobs
        assert stages.keys() >= {"queued", "fetch", "decode", "model", "store"}
        assert whole["p50"] <= whole["p90"] <= whole["p99"]
        assert max(stage["p50"] for stage in stages.values()) <= whole["p50"]
    assert {record.id for record in client.list(limit=1000).records} == before

    text = maskq(*arguments).stdout
    assert "images/s" in text
    assert "submit to end" in text


def test_a_service_that_fails_is_not_measured(client: Client, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(damaged("no image"))
    ran = maskq("bench", str(broken), "--alone", "0", check=False)
    assert ran.returncode == 1
    assert "the measurement was stopped" in ran.stderr
    missing = maskq("bench", str(tmp_path / "none.jpg"), check=False)
    assert missing.returncode == 1
    assert "cannot read" in missing.stderr


def test_percentiles_are_values_that_were_measured() -> None:
    assert [percentile([4, 1, 3, 2], rank) for rank in (1, 25, 50, 90, 99, 100)] == [
        1,
        1,
        2,
        4,
        4,
        4,
    ]
    assert percentile([7], 50) == 7
