"""A drain that is cut off: other workers get its jobs at once, and it computes no more for them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from integration.worker.test_pipeline import Bench
from support.waiting import until

from maskq import JobStatus
from maskq_worker.broker import bootstep
from maskq_worker.model import Segmenter

JOBS = "abcde"


def test_images_that_wait_for_the_model_are_not_computed(
    bench: Bench, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker with five jobs, whose model computes the images of the first
    computed, go_on = 0, threading.Event()
    submit_batch = segmenter.submit_batch

    def hold(batch: Sequence[Any], context: Any) -> Any:
        nonlocal computed
        computed += len(batch)
        assert go_on.wait(60)
        return submit_batch(batch, context)

    monkeypatch.setattr(segmenter, "submit_batch", hold)
    for job_id in JOBS:
        bench.submit(job_id)
    step = bootstep.ModelStep.__new__(bootstep.ModelStep)
    step._leases, step._ledger = bench.pipeline._leases, bench.ledger
    step._batcher = bench.batcher
    with ThreadPoolExecutor(len(JOBS)) as pool:
        threads = [pool.submit(bench.pipeline.run, "smallest") for _ in JOBS]
        until(lambda: computed and computed + len(bench.batcher._waiting) == len(JOBS))
        first = computed
        # When its drain is over
        bench.pipeline.stop_claiming()
        monkeypatch.setattr(bootstep, "_CUT_OFF_S", 0.1)
        step._cut_off()
        go_on.set()
        for thread in threads:
            thread.result(60)
    # Then the model has computed no others, and all jobs wait for another worker
    assert computed == first < len(JOBS)
    assert {bench.record(job_id).status for job_id in JOBS} == {JobStatus.QUEUED}
