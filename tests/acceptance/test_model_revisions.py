"""From one revision of a model to the next under load, as docs/upgrading.md says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.checkpoints import write_smallest
from PIL import Image

from maskq import Client, JobRecord, JobStatus
from maskq_standalone.stack import Stack

IMAGE = Image.new("RGB", (64, 48), "teal")


def ended(client: Client, ids: Iterable[str]) -> list[JobRecord]:
    for job_id in ids:
        client.get(job_id).wait(timeout=60)
    records = [client.get(job_id).refresh() for job_id in ids]
    assert {one.status for one in records} == {JobStatus.SUCCEEDED}
    return records


def revision(record: JobRecord) -> str | None:
    assert record.result is not None
    return record.result.model_revision


def default(name: str) -> None:
    maskq = str(Path(sys.executable).with_name("maskq"))
    command = [maskq, "--transport", "direct", "models", "default", name]
    subprocess.run(command, check=True, capture_output=True)


def test_every_result_names_the_revision_of_its_worker(
    fresh_stack: Stack, fresh_client: Client, smallest_model: Path, tmp_path: Path
) -> None:
    # Given workers of two checkpoints that are served under one name
    other = write_smallest(tmp_path / "other", side=64)
    for checkpoint in (smallest_model, other):
        env = {"MASKQ_MODEL": str(checkpoint), "MASKQ_MODEL_NAME": "ade20k"}
        fresh_stack.start_worker(env)
    place = str(fresh_client.submit(IMAGE).refresh().request.image_uri)
    # When many jobs run, in batches
    batch = fresh_client.submit_many([place] * 80, model="ade20k")
    records = ended(fresh_client, [job.id for job in batch.jobs])
    # Then each result names the revision that its worker, and so its batch, has
    (served,) = [one for one in fresh_client.models() if one.name == "ade20k"]
    loaded = {one.owner: one.revision for one in served.workers}
    assert len(set(loaded.values())) == 2
    assert all(revision(one) == loaded[str(one.owner)] for one in records)
    assert {revision(one) for one in records} == {*loaded.values()}


def test_a_switch_of_the_default_leaves_each_job_its_revision(
    fresh_stack: Stack, fresh_client: Client, smallest_model: Path, tmp_path: Path
) -> None:
    # Given workers of two checkpoints under names of their own, and a default
    other = write_smallest(tmp_path / "other", side=64)
    for name, checkpoint in (("ade20k-a", smallest_model), ("ade20k-b", other)):
        fresh_stack.start_worker({"MASKQ_MODEL": str(checkpoint), "MASKQ_MODEL_NAME": name})
    default("ade20k-a")
    place = str(fresh_client.submit(IMAGE).refresh().request.image_uri)
    before = [fresh_client.submit(place).id for _ in range(20)]
    pinned = [fresh_client.submit(place, model="ade20k-a").id for _ in range(5)]
    # When the default is switched while jobs wait
    default("ade20k-b")
    after = [fresh_client.submit(place).id for _ in range(20)]
    pinned += [fresh_client.submit(place, model="ade20k-a").id for _ in range(5)]
    # Then each runs on the revision that was its own when it was submitted
    first, second = ({revision(one) for one in ended(fresh_client, ids)} for ids in (before, after))
    assert len(first) == len(second) == 1
    assert first.isdisjoint(second)
    assert {revision(one) for one in ended(fresh_client, pinned)} == first
