"""One process per slot, started again in the same one; real processes of a few lines each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import until

# The supervisor runs in a process of its own: it takes the signal handlers of its main thread.
SUPERVISOR = """
import sys
from maskq_worker.process.supervisor import Slot, Supervisor
slots = [Slot(f"worker on {name}", {"CUDA_VISIBLE_DEVICES": name}) for name in sys.argv[2:]]
sys.exit(Supervisor(slots, command=[sys.executable, sys.argv[1]]).run())
"""
# Says which GPU it sees and which process it is, then does as told by a file.
WORKER = """
import os, pathlib, signal, sys, time
gpu = os.environ["CUDA_VISIBLE_DEVICES"]
here = pathlib.Path(__file__).parent
if (here / "hopeless").exists():
    sys.exit(78)
def drain(*_):
    (here / f"drained-{gpu}").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, drain)
with open(here / f"started-{gpu}", "a") as log:
    print(os.getpid(), file=log, flush=True)
time.sleep(60)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    return script


def start(worker: Path, *gpus: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(worker), *gpus], stderr=subprocess.PIPE
    )


def pids(worker: Path, gpu: str, *, count: int) -> list[int]:
    """The first `count` processes that were started for a GPU."""
    log = worker.parent / f"started-{gpu}"
    until(lambda: log.exists() and len(log.read_text().split()) >= count, within_s=15)
    return [int(pid) for pid in log.read_text().split()]


def test_a_dead_process_is_started_again_with_the_same_gpu(worker: Path) -> None:
    # Given one process for each of two GPUs
    supervisor = start(worker, "GPU-a", "GPU-b")
    (first,) = pids(worker, "GPU-a", count=1)
    (other,) = pids(worker, "GPU-b", count=1)

    # When one is killed
    os.kill(first, signal.SIGKILL)

    # Then its GPU, and only its, has a new one; at SIGTERM all drain and the exit code is 0
    again = pids(worker, "GPU-a", count=2)
    assert again[0] == first
    assert pids(worker, "GPU-b", count=1) == [other]
    supervisor.terminate()
    _, err = supervisor.communicate(timeout=20)
    assert supervisor.returncode == 0
    assert b"worker on GPU-a ended with signal 9; starting it again" in err
    assert (worker.parent / "drained-GPU-a").exists()
    assert (worker.parent / "drained-GPU-b").exists()


def test_a_mistake_in_the_settings_is_not_tried_again(worker: Path) -> None:
    (worker.parent / "hopeless").touch()
    supervisor = start(worker, "GPU-a")
    supervisor.communicate(timeout=20)
    assert supervisor.returncode == 78
