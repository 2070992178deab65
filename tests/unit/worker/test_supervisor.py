"""One process per slot, started again in the same one; real processes of a few lines each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import until

from maskq.backoff import ExponentialBackoff
from maskq_worker.process.supervised import Restarts

pytestmark = pytest.mark.slow

# The supervisor runs in a process of its own: it takes the signal handlers of its main thread.
SUPERVISOR = """
import sys
import time
from maskq.process.stop_signal import StopSignal
from maskq_worker.process.slots import Slot
from maskq_worker.process.supervisor import Supervisor
command = [sys.executable, sys.argv[1]]
slots = [Slot(f"worker on {n}", command, {"CUDA_VISIBLE_DEVICES": n}) for n in sys.argv[2:]]
report = lambda line: print(line, file=sys.stderr, flush=True)
sys.exit(Supervisor(StopSignal(), report).run(slots))
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
deaf = (here / "deaf").exists()
signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else drain)
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


def test_dead_process_is_started_again_with_the_same_gpu(worker: Path) -> None:
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


def test_supervisor_exits_with_78_when_a_worker_does(worker: Path) -> None:
    (worker.parent / "hopeless").touch()
    supervisor = start(worker, "GPU-a")
    supervisor.communicate(timeout=20)
    assert supervisor.returncode == 78


def test_second_signal_kills_a_worker_that_drains(worker: Path) -> None:
    (worker.parent / "deaf").touch()
    supervisor = start(worker, "GPU-a")
    (pid,) = pids(worker, "GPU-a", count=1)
    supervisor.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        supervisor.wait(timeout=0.5)
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(timeout=10) == 0
    supervisor.communicate()
    assert ended(pid)


def test_worker_ends_when_its_supervisor_is_killed(worker: Path) -> None:
    supervisor = start(worker, "GPU-a")
    (pid,) = pids(worker, "GPU-a", count=1)
    supervisor.kill()
    supervisor.communicate()
    until(lambda: ended(pid))
    assert (worker.parent / "drained-GPU-a").exists()  # by SIGTERM


def ended(pid: int) -> bool:
    """Whether no process has this id, or only a zombie that nobody has waited for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


class TestRestarts:
    def test_pauses_grow_while_failures_follow_each_other(self) -> None:
        restarts = Restarts(ExponentialBackoff(first_s=1.0, longest_s=5.0, immediate=1))
        assert [restarts.ended() for _ in range(5)] == [0.0, 1.0, 2.0, 4.0, 5.0]

    def test_pause_is_short_again_after_a_long_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        restarts = Restarts(ExponentialBackoff(first_s=1.0, longest_s=5.0))
        assert [restarts.ended() for _ in range(3)] == [1.0, 2.0, 4.0]
        monkeypatch.setattr("maskq_worker.process.supervised._STEADY_S", -1.0)
        assert restarts.ended() == 1.0
