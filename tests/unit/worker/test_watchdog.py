"""A forward that hangs ends its process, as does a dead model thread; a slow one does not."""

from __future__ import annotations

import math
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import logging, math, sys, time
from dataclasses import dataclass
from maskq_worker.batching.batcher import MicroBatcher
from maskq_worker.batching.errors import BatcherClosed
from maskq_worker.jobs.watchdog import Watchdog

logging.basicConfig()
class Sleeping:
    def submit_batch(self, batch, context):
        if math.isnan(batch[0]):
            sys.exit(1)
        time.sleep(batch[0])
        return Slept(batch)

@dataclass
class Slept:
    batch: list

    def wait(self):
        return self.batch

batcher = MicroBatcher(Sleeping(), max_batch_size=1, name="model")
batcher.start()
watchdog = Watchdog(batcher, limit_s=2.0)
watchdog.start()
for seconds in map(float, sys.argv[1:]):
    try:
        batcher.submit(seconds).result()
    except BatcherClosed:  # its worker waits for the next job
        time.sleep(60)
watchdog.stop()
batcher.close()
print("done")
"""


def run(*seconds: float) -> tuple[int, str, str, float]:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, seconds)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr, time.monotonic() - began


def test_many_slow_forwards_are_no_hanging_one() -> None:
    code, out, _, _ = run(0.6, 0.6, 0.6, 0.6)
    assert (code, out.strip()) == (0, "done")


def test_a_hanging_one_ends_the_process_with_a_word_on_why() -> None:
    code, out, error, took_s = run(0.1, 60)
    assert (code, out) == (70, "")
    assert "MASKQ_FORWARD_TIMEOUT_S" in error
    assert took_s < 30


def test_a_dead_thread_ends_the_process_with_a_word_on_why() -> None:
    code, out, error, took_s = run(0.1, math.nan)
    assert (code, out) == (70, "")
    assert "the model's thread died" in error
    assert took_s < 30


def test_a_lost_card_ends_the_process_with_a_word_on_why() -> None:
    error = r"RuntimeError('CUDA error: gone\nmore')"
    program = f"from maskq_worker.broker import bootstep; bootstep._end_for('cuda:0', {error})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 70
    assert "cuda:0 is lost to this process (CUDA error: gone)" in done.stderr
    assert "more" not in done.stderr
