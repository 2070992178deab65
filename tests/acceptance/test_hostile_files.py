"""Damaged and hostile files among good ones: the good ones succeed, the worker lives. `make chaos` does
it with thousands (tests/chaos/test_hostile_files.py)."""

from __future__ import annotations

import random

import pytest
from images.hostile import SIZE, canvases, good_files, mutated
from support.damaged import stored
from support.process_tree import command_of, descendants
from unit.imaging.test_odd_files import NO_IMAGES

from maskq import Client, FailureCode, JobStatus
from maskq_standalone.stack import Stack

TYPED = {FailureCode.INVALID_IMAGE, FailureCode.IMAGE_TOO_LARGE}


def decoding_processes(worker: int) -> list[int]:
    return [pid for pid in descendants(worker) if "maskq_worker.decoding.child" in command_of(pid)]


@pytest.mark.timeout(300)
def test_hostile_files_fail_alone(stack: Stack, client: Client) -> None:
    # Given a worker that decodes in another process
    worker = stack.workers[0].pid
    assert decoding_processes(worker)

    # When it gets damaged and hostile files between good ones
    hostile = [*NO_IMAGES.values(), *(data for _, data in mutated(40, seed=4))]
    hostile += [data for name, data in canvases().items() if len(data) < 3000]
    sources = [(data, True) for data in good_files().values()] + [(data, False) for data in hostile]
    random.Random(1).shuffle(sources)
    batch = client.submit_many(stored(stack.s3, [data for data, _ in sources]))
    ended = list(batch.as_completed(timeout=240))

    # Then every good one succeeds, and each other one succeeds or has a typed failure
    assert len(ended) == len(sources)
    for job, (_, good) in zip(batch.jobs, sources, strict=True):
        record = job.refresh()
        if record.status is JobStatus.SUCCEEDED:
            assert record.result is not None
            assert not good or (record.result.width, record.result.height) == SIZE
        else:
            assert record.error is not None
            assert (good, record.status) == (False, JobStatus.FAILED), record.error
            assert record.error.code in TYPED
        assert record.attempt == 1
    # And no worker has died
    assert stack.workers[0].pid == worker
    assert decoding_processes(worker)
