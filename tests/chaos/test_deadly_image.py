"""One image that kills its worker, among two hundred good ones."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from chaos import deadly_worker
from chaos.conftest import IMAGE, fleet_of
from PIL import Image

from maskq import FailureCode, JobStatus


def test_200_succeed_uncharged_and_the_deadly_one_ends_worker_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (sys.executable, deadly_worker.__file__)
    with fleet_of(tmp_path, monkeypatch, workers=2, worker_command=command) as fleet:
        began = time.monotonic()
        place = fleet.client.submit(IMAGE).refresh().request.image_uri
        good = [fleet.client.submit(place).id for _ in range(100)]
        deadly = fleet.client.submit(Image.new("RGB", deadly_worker.DEADLY))
        good += [fleet.client.submit(place).id for _ in range(99)]

        def all_ended() -> bool:
            fleet.stack.check()  # restarts what died
            return all(one.ended for one in fleet.records())

        fleet.wait_until(all_ended, 300)
        records = {one.id: one for one in fleet.records()}
        guilty = records.pop(deadly.id)
        assert Counter(one.status for one in records.values()) == {JobStatus.SUCCEEDED: 200}
        assert Counter(one.charges for one in records.values()) == {0: 200}
        assert guilty.error is not None
        assert (guilty.status, guilty.error.code) == (JobStatus.FAILED, FailureCode.WORKER_LOST)
        assert guilty.charges == guilty.max_attempts
        fleet.one_terminal_event_each([*records, deadly.id])
        attempts = dict(sorted(Counter(one.attempt for one in records.values()).items()))
        print(f"\n200 good ones, {time.monotonic() - began:.0f} s: {attempts=}, {guilty.error=}")
