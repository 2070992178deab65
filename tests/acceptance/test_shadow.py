"""A share of the jobs runs again with another checkpoint. The report compares; callers see nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bench.checkpoints import write_smallest
from PIL import Image
from support.acl_stack import operator_variables
from support.redis_servers import admin

from maskq import Client, JobStatus
from maskq.cli.comparison.masks import Differences, NotComparable, check_labels, confusion
from maskq.cli.shadow.target import ShadowTarget
from maskq.errors import InvalidRequest
from maskq.settings import Settings
from maskq_standalone.stack import Stack

SHADOW = {"MASKQ_KEY_PREFIX": "maskq-shadow", "MASKQ_OUTPUT_PREFIX": "maskq-shadow"}


def mask_of(*rows: bytes) -> Image.Image:
    return Image.frombytes("P", (len(rows[0]), len(rows)), b"".join(rows))


def test_iou_and_shares_of_a_pair_of_masks() -> None:
    differences = Differences()
    found = confusion(mask_of(b"\0\0\1\1"), mask_of(b"\0\1\1\2"))
    differences.add("a", found, {0: "sky", 1: "road", 2: "tree"})
    differences.add("b", confusion(mask_of(b"\0\0\0\0"), mask_of(b"\0\0\0\0")), {0: "sky"})
    assert found == Counter({(0, 0): 1, (0, 1): 1, (1, 1): 1, (1, 2): 1})
    assert differences.share == 0.25
    assert differences.iou() == {0: 5 / 6, 1: 1 / 3, 2: 0.0}
    assert differences.worst(1) == [("a", 0.5)]


def test_what_is_not_comparable_is_said() -> None:
    with pytest.raises(NotComparable, match="sizes differ"):
        confusion(mask_of(b"\0"), mask_of(b"\0\0"))
    with pytest.raises(NotComparable, match="256 classes"):
        confusion(Image.new("I;16", (1, 1)), mask_of(b"\0"))
    with pytest.raises(NotComparable, match="class 1 is 'road' in one model and 'sky'"):
        check_labels({1: "road"}, {1: "sky"})


def test_the_choice_depends_on_the_id_alone() -> None:
    ids = [f"job-{number}" for number in range(4000)]
    tenth, half = ShadowTarget("b", 0.1), ShadowTarget("b", 0.5)
    chosen = [one for one in ids if tenth.chooses(one)]
    assert 320 < len(chosen) < 480
    assert all(half.chooses(one) for one in chosen)
    assert all(ShadowTarget("b", 1.0).chooses(one) for one in ids)


@pytest.mark.parametrize("text", ["", "ade20k", "ade20k:0", "ade20k:2", "ade20k:x", ":0.1"])
def test_a_setting_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="NAME:SHARE"):
        ShadowTarget.of(Settings(shadow_model=text or None))


def shadow(*arguments: str, **more: str) -> str:
    said = subprocess.run(
        [str(Path(sys.executable).with_name("maskq")), "shadow", *arguments],
        env=os.environ | more,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert said.returncode == 0, said.stderr
    return said.stdout


def test_a_share_of_the_jobs_runs_again_unseen(
    fresh_stack: Stack, fresh_client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker, and one of the shadow deployment with a checkpoint of other weights
    stack = fresh_stack
    other = write_smallest(tmp_path / "other", side=64)
    stack.start_workers(1)
    operator = operator_variables(stack)  # the shipped users have no rights on a second deployment
    served = {"MASKQ_MODEL": str(other), "MASKQ_MODEL_NAME": "candidate"}
    stack.start_workers(1, operator | SHADOW | served)
    for name, value in operator.items():
        monkeypatch.setenv(name, value)
    jobs = [fresh_client.submit(_noise(number), outputs=["mask"]) for number in range(6)]
    for job in jobs:
        job.wait(timeout=60)
    with admin(stack.redis) as redis:
        before = _of_callers(redis)
        # When they are run again, twice
        for _ in range(2):
            shadow("mirror", "--since", "0", "--idle", "1", MASKQ_SHADOW_MODEL="candidate:1")
        with Client(
            Settings.load(key_prefix="maskq-shadow", output_prefix="maskq-shadow")
        ) as second:
            again = list(second.list_all())
            for record in again:
                second.get(record.id).wait(timeout=60)
        # Then each ran once more, at low priority
        assert {one.request.metadata["shadow_of"] for one in again} == {job.id for job in jobs}
        assert len(again) == len(jobs)
        assert {one.priority for one in again} == {"low"}
        # And callers see nothing of it, but for the group of readers
        assert _of_callers(redis) == before
    assert Counter(one.status for one in fresh_client.list().records) == {JobStatus.SUCCEEDED: 6}
    report: dict[str, Any] = json.loads(shadow("report", "--json", "--worst", "2"))
    assert report["jobs"] == 6
    assert report["skipped"] == {}
    assert len(report["models"]) == 2
    assert 0 < report["differing_share"] <= 1
    assert len(report["worst_jobs"]) == 2
    assert "6 jobs compared" in shadow("report")


def _noise(number: int) -> Image.Image:
    return Image.effect_noise((64, 48), 20 * (number + 1)).convert("RGB")


def _of_callers(redis: Any) -> dict[str, Any]:
    """Names of all keys of the callers' deployment, and the ends of its events."""
    expiring = (":claim:", ":sweep-turn")
    names = {one for one in redis.scan_iter("maskq:*") if not any(part in one for part in expiring)}
    return {"keys": names, "events": redis.xlen("maskq:events")}
