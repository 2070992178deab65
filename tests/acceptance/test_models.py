"""Several checkpoints on one queue server: each job goes to a worker of its own model."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.checkpoints import write_smallest
from PIL import Image

from maskq import Client, JobStatus, UnknownModel
from maskq_standalone.stack import Stack

IMAGE = Image.new("RGB", (64, 48), "teal")


def test_jobs_find_the_worker_of_their_model(
    fresh_stack: Stack, fresh_client: Client, tmp_path: Path
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

    # When one is scaled to zero, its jobs wait while the other's run
    workers["first"].child.terminate()
    workers["first"].child.wait_ended(60)
    waiting = fresh_client.submit(IMAGE, model="first")
    fresh_client.submit(IMAGE, model="second").wait(timeout=60)
    assert waiting.refresh().status is JobStatus.QUEUED

    # And run once it is back
    fresh_stack.start_worker({"MASKQ_MODEL": str(models["first"])})
    waiting.wait(timeout=60)
