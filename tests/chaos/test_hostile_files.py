"""5,000 damaged and hostile files among 2,000 good ones, through one real worker."""

from __future__ import annotations

import random
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from acceptance.test_hostile_files import TYPED
from chaos.conftest import fleet_of
from images.hostile import SIZE, good_files, made_by_hand, mutated
from support.damaged import stored
from support.process_tree import PeakMemory

from maskq import JobStatus

GOOD, DAMAGED = 2000, 6500  # of these, some four in five cannot be read any more
PIXELS, DECODED_BYTES, CPU_S = 20_000_000, 512 * 2**20, 2
PROCESSES = 2
AT_ONCE = 200  # submitted together, with some good ones
# Of each decoding process: what it may use beside the pixels (SPARE_BYTES), and itself.
EACH_PROCESS = (96 + 70) * 2**20
BOUND = DECODED_BYTES + PROCESSES * EACH_PROCESS


def test_the_good_succeed_and_the_others_fail_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "max_image_pixels": PIXELS,
        "max_decoded_bytes": DECODED_BYTES,
        "max_decode_cpu_s": CPU_S,
        "decode_processes": PROCESSES,
    }
    with fleet_of(tmp_path, monkeypatch, workers=1, **settings) as fleet:
        pid = fleet.stack.workers[0].pid
        uploads = [fleet.client.submit(data) for data in good_files().values()]
        good_places = [job.refresh().request.image_uri for job in uploads]
        by_hand = made_by_hand()
        bad = iter([*by_hand.values(), *(data for _, data in mutated(DAMAGED, seed=15))])
        chance = random.Random(15)
        good: set[str] = set()
        batches = []
        began = time.monotonic()
        with PeakMemory(pid) as memory:
            while part := list(islice(bad, AT_ONCE)):
                share = round(GOOD * AT_ONCE / (len(by_hand) + DAMAGED))
                number = min(share, GOOD - len(good)) if len(part) == AT_ONCE else GOOD - len(good)
                places = stored(fleet.stack.s3, part)  # a client refuses what is no image
                batch = fleet.client.submit_many([*places, *chance.choices(good_places, k=number)])
                good.update(job.id for job in batch.jobs[len(part) :])
                batches.append(batch)
            for batch in batches:
                list(batch.as_completed(timeout=600))
        jobs = [job.id for batch in batches for job in batch.jobs]
        records = {one.id: one for one in fleet.records() if one.id in set(jobs)}
        took = time.monotonic() - began

        # No process died, and memory stayed below the bound.
        assert fleet.stack.workers[0].pid == pid
        fleet.stack.check()
        assert fleet.stack.workers[0].pid == pid
        assert Counter(one.attempt for one in records.values()) == {1: len(jobs)}
        assert memory.peak - memory.start < BOUND
        # All good ones have a mask of their size; each other one has a typed failure, or is an image.
        assert {records[one].status for one in good} == {JobStatus.SUCCEEDED}
        sizes = {
            (r.result.width, r.result.height) for r in map(records.get, good) if r and r.result
        }
        assert sizes == {SIZE}
        others = [one for one in records.values() if one.id not in good]
        outcomes = Counter(one.error.code.value if one.error else "succeeded" for one in others)
        assert set(outcomes) <= {*TYPED, "succeeded"}
        assert outcomes.total() - outcomes["succeeded"] >= 5000
        fleet.one_terminal_event_each([*records, *(job.id for job in uploads)])
        kinds = Counter(
            one.error.message.partition(";")[0] for one in others
            if one.error and "the decoder of" in one.error.message
        )  # fmt: skip
        assert (
            kinds
        )  # one takes too long: by its processor time or, on a busy machine, by the clock
        print(
            f"\n{len(good)} good files and {len(others)} others in {took:.0f} s: {dict(outcomes)}; "
            f"memory {memory.start >> 20} MiB before, {memory.peak >> 20} at the peak, bound "
            f"{memory.start + BOUND >> 20}; ended decoders: {dict(kinds)}"
        )
