"""Several checkpoints on one queue server: each job goes to a worker of its own model."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench.checkpoints import write_smallest
from PIL import Image
from safetensors.torch import load_file, save_file
from support.acl_stack import variables_of

from maskq import Client, JobStatus, UnknownModel
from maskq.contract.locations import S3Uri
from maskq_standalone.stack import Stack

IMAGE = Image.new("RGB", (64, 48), "teal")


def test_jobs_find_the_worker_of_their_model(
    fresh_stack: Stack, fresh_client: Client, direct: Client, tmp_path: Path
) -> None:
    # Given workers of two checkpoints
    models = {name: write_smallest(tmp_path / name) for name in ("first", "second")}
    workers = {
        name: fresh_stack.start_worker({"MASKQ_MODEL": str(path)}) for name, path in models.items()
    }

    # Then a job goes to the one that it names
    for name, worker in workers.items():
        record = fresh_client.submit(IMAGE, model=name)
        assert record.wait(timeout=60).details.model == name
        owner = record.refresh().owner
        assert owner is not None
        assert owner.endswith(f":{worker.pid}")

    # And a name that nobody serves is refused, with those that are
    with pytest.raises(UnknownModel, match="first, second"):
        fresh_client.submit(IMAGE, model="third")
    with pytest.raises(UnknownModel, match="choose one"):
        fresh_client.submit(IMAGE)

    # And one that names none goes where the deployment says, from Celery too
    direct.set_default_model("second")
    assert fresh_client.submit(IMAGE).wait(timeout=60).details.model == "second"
    assert _model_of_a_celery_caller(fresh_stack) == "second"
    direct.set_default_model(None)

    # When one is scaled to zero, its jobs wait while the other's run
    workers["first"].child.terminate()
    workers["first"].child.wait_ended(60)
    waiting = fresh_client.submit(IMAGE, model="first")
    fresh_client.submit(IMAGE, model="second").wait(timeout=60)
    assert waiting.refresh().status is JobStatus.QUEUED
    assert [(m.name, len(m.workers), m.queued) for m in fresh_client.models()] == [
        ("first", 0, 1),
        ("second", 1, 0),
    ]
    # And what names none goes to the one that is alive
    assert fresh_client.submit(IMAGE).wait(timeout=60).details.model == "second"

    # And run once it is back
    fresh_stack.start_worker({"MASKQ_MODEL": str(models["first"])})
    waiting.wait(timeout=60)


# In a process of its own: Celery's results outlive this test's Redis in ours.
CALLER = """
import os, sys
from celery import Celery
app = Celery("shop", broker=os.environ["MASKQ_REDIS_URL"], backend=os.environ["MASKQ_REDIS_URL"])
sent = app.send_task("maskq.segment", args=[{"image_uri": sys.argv[1]}], queue="maskq")
print(sent.get(timeout=60)["model"])
"""


def _model_of_a_celery_caller(stack: Stack) -> str:
    place, body = S3Uri("maskq", "photos/celery.png"), io.BytesIO()
    IMAGE.save(body, "PNG")
    stack.s3.client().put_object(Bucket=place.bucket, Key=place.key, Body=body.getvalue())
    ran = subprocess.run(
        [sys.executable, "-c", CALLER, str(place)],
        env=os.environ | variables_of(stack, "celery"),
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.strip()


def test_checkpoints_whose_folders_share_a_name_are_told_apart(
    fresh_stack: Stack, fresh_client: Client, direct: Client, tmp_path: Path
) -> None:
    # Given two checkpoints in folders of one name, of which one is served under a name of its own
    day, night = (write_smallest(tmp_path / name / "model") for name in ("day", "night"))
    weights = night / "model.safetensors"
    tensors = load_file(weights)
    name = min(tensors)
    save_file({**tensors, name: tensors[name] + 1}, weights)  # other weights: another revision
    by_day = fresh_stack.start_worker({"MASKQ_MODEL": str(day)})
    fresh_stack.start_worker({"MASKQ_MODEL": str(night), "MASKQ_MODEL_NAME": "by-night"})

    # Then each serves its own jobs, and results say which weights made them
    results = {
        model: fresh_client.submit(IMAGE, model=model).wait(timeout=60).details
        for model in ("model", "by-night")
    }
    assert {model: result.model for model, result in results.items()} == {
        "model": "model",
        "by-night": "by-night",
    }
    revisions = {model.name: model.revision for model in fresh_client.models()}
    assert {m: result.model_revision for m, result in results.items()} == revisions
    assert len(set(revisions.values())) == 2

    # When the second is started without a name of its own
    mixed = fresh_stack.start_worker({"MASKQ_MODEL": str(night)})

    # Then it says so, and who looks at the models sees both
    said = (fresh_stack.directory / "logs" / f"{mixed.name}.log").read_text()
    assert "two checkpoints are served as 'model'" in said
    assert "MASKQ_MODEL_NAME" in said
    (found,) = [model for model in fresh_client.models() if model.name == "model"]
    assert len(found.revisions) == 2

    # And once both have gone, the name can be retired
    for worker in (by_day, mixed):
        worker.child.terminate()
        worker.child.wait_ended(60)
    direct.retire_model("model")
    with pytest.raises(UnknownModel, match="known are: by-night"):
        fresh_client.submit(IMAGE, model="model")
