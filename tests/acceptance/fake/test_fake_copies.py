"""What a job leaves under the names that its output_name gives, on the fake and on a real stack."""

from __future__ import annotations

import json
from typing import Any

from support.waiting import until
from support.worlds import SIZE, World, new_prefix

from maskq import Client, FailureCode
from maskq.contract.jobs import ErrorFile
from maskq.testing import damaged_image_bytes, image_bytes


def named(world: World, prefix: str) -> dict[str, bytes]:
    """The objects below `named/` of an output_prefix: name → content."""
    below = f"{prefix}/named"
    return {at.removeprefix(f"{below}/"): body for at, body in world.objects(below).items()}


def test_copies_have_the_bytes_of_the_outputs(world: World) -> None:
    prefix = new_prefix(world)
    result = world.submit(
        outputs={"mask", "stats", "binary"},
        output_prefix=prefix,
        output_name="named/{output}-{class}",
    ).wait(60)
    written = named(world, prefix)
    assert {f"{prefix}/named/{name}" for name in written} == set(result.copies.values())
    assert written["mask-.png"] == result.read("mask")
    assert written["stats-.json"] == result.read("stats")
    for class_id in result.labels:
        assert written[f"binary-{class_id:03d}.png"] == result.read("binary", class_id)


def test_a_deleted_job_takes_its_copies_but_not_those_of_the_next(world: World) -> None:
    options: Any = {"output_prefix": new_prefix(world), "output_name": "named/{output}"}
    first = world.submit(**options)
    first.wait(60)
    second = world.submit(output_replace=True, **options)
    mask = second.wait(60).read("mask")
    first.delete()
    assert named(world, options["output_prefix"]) == {"mask.png": mask}
    second.delete()
    assert named(world, options["output_prefix"]) == {}


def test_a_failed_job_leaves_an_error_file_until_its_retry_succeeds(
    world: World, client: Client
) -> None:
    options: Any = {
        "output_prefix": new_prefix(world),
        "output_name": "named/{output}",
        "output_error_file": True,
        "tenant": world.tenant,
    }
    failed = client.submit(damaged_image_bytes(), **options)
    until(failed.done)
    written = until(lambda: named(world, options["output_prefix"]))
    assert set(written) == {"error.json"}
    document = ErrorFile.model_validate_json(written["error.json"])
    assert failed.record
    assert (document.job_id, document.error) == (failed.id, failed.record.error)
    assert document.error.code is FailureCode.INVALID_IMAGE
    assert json.loads(written["error.json"])["status"] == "failed"

    client.submit(image_bytes(SIZE), output_replace=True, **options).wait(60)
    assert set(named(world, options["output_prefix"])) == {"mask.png"}


def test_a_canceled_job_leaves_no_error_file(world: World) -> None:
    prefix = new_prefix(world)
    with world.queued_jobs() as options:
        job = world.submit(
            output_prefix=prefix, output_name="named/{output}", output_error_file=True, **options
        )
        job.cancel()
    assert named(world, prefix) == {}
