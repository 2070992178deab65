"""maskq compare: two checkpoints on the same images, through the queue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench.checkpoints import write_smallest
from PIL import Image
from support.acl_stack import operator_variables

from maskq import Client
from maskq_standalone.stack import Stack


def compare(*arguments: str) -> tuple[int, str]:
    said = subprocess.run(
        [str(Path(sys.executable).with_name("maskq")), "compare", *arguments],
        env=os.environ.copy(),
        capture_output=True,
        text=True,
        timeout=180,
    )
    return said.returncode, said.stdout + said.stderr * (said.returncode != 0)


def test_two_checkpoints_are_compared(
    fresh_stack: Stack, fresh_client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two workers with checkpoints of other weights
    other = write_smallest(tmp_path / "other", side=64)
    served = operator_variables(fresh_stack)
    for name, value in served.items():
        monkeypatch.setenv(name, value)
    fresh_stack.start_workers(1, served | {"MASKQ_MODEL_NAME": "first"})
    fresh_stack.start_workers(1, served | {"MASKQ_MODEL": str(other), "MASKQ_MODEL_NAME": "second"})
    images = tmp_path / "images"
    images.mkdir()
    for number in range(4):
        noise = Image.effect_noise((64, 48), 20 * (number + 1)).convert("RGB")
        noise.save(images / f"{number}.png")
    # When they are compared
    code, out = compare("first", "second", str(images), "--json", "--fail-above", "1")
    # Then each image has two jobs and a share, and the classes add up
    assert code == 0, out
    report = json.loads(out)
    assert report["images"] == 4
    assert report["skipped"] == {}
    assert {name.split(" at ")[0] for name in report["models"]} == {"first", "second"}
    assert 0 < report["differing_share"] <= 1
    shares = [one["differing_share"] for one in report["each"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) / 4 == pytest.approx(report["differing_share"])  # all of one size
    assert 0 < sum(one["share"] for one in report["confusions"]) <= report["differing_share"] + 1e-9
    assert {Path(one["image"]).name for one in report["each"]} == {f"{n}.png" for n in range(4)}
    for one in report["each"]:
        models = [fresh_client.get(job_id).refresh().model for job_id in one["jobs"]]
        assert models == ["first", "second"]
    # And a limit makes a difference an error
    code, out = compare("first", "second", str(images), "--fail-above", "0")
    assert code == 1
    assert "more than 0.0000% of the pixels differ" in out
    assert "4 images compared; " in out
