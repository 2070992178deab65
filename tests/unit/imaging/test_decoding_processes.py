"""Images decoded in other processes: the same pixels, and whatever an image does to its decoder, only
that image fails."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images.drawn import page, tiff
from images.variants import ALL
from PIL import Image
from support.waiting import until

from maskq.contract import FailureCode
from maskq.errors import InvalidRequest
from maskq_worker.decoding import DecodeLimits, ThreadDecoder, limits, make_decoder
from maskq_worker.decoding.memory import KEPT_PIXEL_BYTES, MOST_PIXEL_BYTES, PIXEL_BYTES
from maskq_worker.decoding.pool import ProcessDecoder
from maskq_worker.decoding.process import DecodeProcess
from maskq_worker.errors import JobError, PermanentError, TransientError
from maskq_worker.imaging import Decoded
from maskq_worker.jobs.memory_budget import MemoryBudget
from maskq_worker.settings import WorkerSettings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="decoding processes need Linux"),
]

LIMITS = DecodeLimits(max_pixels=4_000_000, max_bytes=2**24, max_scans=100, cpu_s=20)
SHORT = DecodeLimits(max_pixels=4_000_000, max_bytes=2**24, max_scans=100, cpu_s=1)
MISBEHAVING = "support.misbehaving_decoder"


@pytest.fixture(scope="module")
def decoder() -> Iterator[ProcessDecoder]:
    made = ProcessDecoder(LIMITS, 2)
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def misbehaving() -> Iterator[ProcessDecoder]:
    """One process that does what images tell it to, within 1 s of processor time."""
    with pytest.MonkeyPatch.context() as patient:
        patient.setattr(limits, "_WALL_PER_CPU_SECOND", 60)
        patient.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patient.setenv("MASKQ_REDIS_URL", "secret")
        patient.setenv("ANY_OTHER", "secret")
        made = ProcessDecoder(SHORT, 1, MISBEHAVING)
        made.start()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is."""
    monkeypatch.setattr(limits, "_WALL_PER_CPU_SECOND", 60)


def nothing(_: int) -> None:
    """Memory is always free."""


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def failure(decoder: ProcessDecoder, data: bytes) -> JobError:
    with pytest.raises(JobError) as caught:
        decoder.decode(data, nothing)
    return caught.value


def told(decoder: ProcessDecoder) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(decoder.decode(b"tell:", nothing).notes[0])
    return answer


def eventually(true: Callable[[], bool], within_s: float = 10.0) -> None:
    until(true, within_s=within_s)


def runs(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def same(one: Decoded, other: Decoded) -> bool:
    facts = (one.format, one.notes, one.image.mode, one.image.size)
    return facts == (other.format, other.notes, other.image.mode, other.image.size) and (
        one.image.tobytes() == other.image.tobytes()
    )


# --- the same pixels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_kind_of_file_has_the_same_pixels_in_both(name: str, decoder: ProcessDecoder) -> None:
    data = ALL[name].data
    assert same(decoder.decode(data, nothing), ThreadDecoder(LIMITS).decode(data, nothing))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("size", [(1500, 1400), (4000, 3), (3, 4000), (1, 1), (1024, 1024)])
def test_large_and_narrow_images_come_whole(
    kind: str, size: tuple[int, int], decoder: ProcessDecoder
) -> None:
    """Those of more than a megapixel need a larger buffer; of a TIFF that is known late."""
    image = noise(*size)
    for _ in range(2):
        assert decoder.decode(saved(image, kind), nothing).image.tobytes() == image.tobytes()


def test_many_threads_get_each_their_own_image(decoder: ProcessDecoder) -> None:
    def check(number: int) -> bool:
        image = noise(20 + number, 40)
        kind = ("PNG", "TIFF")[number % 2]
        return decoder.decode(saved(image, kind), nothing).image.tobytes() == image.tobytes()

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(check, range(100)))
    assert len(decoder.pids) == 2


def test_errors_are_those_of_decoding_in_the_thread(decoder: ProcessDecoder) -> None:
    for data in (b"", b"hello", saved(noise(40, 40), "JPEG")[:700], saved(noise(3, 3), "PNG")[:40]):
        with pytest.raises(PermanentError) as in_thread:
            ThreadDecoder(LIMITS).decode(data, nothing)
        error = failure(decoder, data)
        assert (error.code, error.message) == (in_thread.value.code, in_thread.value.message)


# --- memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF"])
@pytest.mark.parametrize("where", ["process", "thread"])
def test_memory_is_asked_for_by_format(kind: str, where: str, decoder: ProcessDecoder) -> None:
    """Given an image, When it is decoded, Then its memory was taken once, for all its pixels."""
    data = saved(noise(50, 30), kind)
    asked: list[int] = []
    (decoder if where == "process" else ThreadDecoder(LIMITS)).decode(data, asked.append)
    assert asked == [50 * 30 * PIXEL_BYTES[kind] + 2 * len(data)]


@pytest.mark.parametrize("where", ["process", "thread"])
@pytest.mark.parametrize(("kind", "mode"), [("TIFF", "RGB"), ("TIFF", "F"), ("PNG", "I;16")])
def test_memory_of_deep_samples_is_what_the_decoder_says(
    kind: str, mode: str, where: str, decoder: ProcessDecoder
) -> None:
    image = Image.new(mode, (50, 30))
    data, asked = saved(image, kind), list[int]()
    (decoder if where == "process" else ThreadDecoder(LIMITS)).decode(data, asked.append)
    assert asked == sorted(asked)
    assert 50 * 30 * PIXEL_BYTES[kind] <= asked[-1] <= 50 * 30 * MOST_PIXEL_BYTES + 2 * len(data)


def test_nothing_takes_less_memory_later_than_the_rest_of_the_job_needs() -> None:
    assert min(PIXEL_BYTES.values()) >= KEPT_PIXEL_BYTES
    assert max(PIXEL_BYTES.values()) <= MOST_PIXEL_BYTES


def test_a_decoder_that_waits_for_memory_goes_on_when_it_is_there(decoder: ProcessDecoder) -> None:
    """Given a TIFF, whose size only its decoder knows, When memory is not free, Then it waits."""
    may, asked = threading.Event(), threading.Event()

    def take(_: int) -> None:
        asked.set()
        assert may.wait(30)

    image = noise(30, 30)
    with ThreadPoolExecutor(1) as threads:
        decoding = threads.submit(decoder.decode, saved(image, "TIFF"), take)
        assert asked.wait(30)
        may.set()
        assert decoding.result(30).image.tobytes() == image.tobytes()


def test_those_with_memory_and_those_with_a_process_do_not_wait_for_each_other(
    decoder: ProcessDecoder,
) -> None:
    """Given room for one image, When images of known and unknown size come, Then all are decoded."""
    room = MemoryBudget(1)
    files = [saved(noise(40, 40), kind) for kind in ("PNG", "TIFF")] * 30

    def job(data: bytes) -> tuple[int, int]:
        with room.reservation() as memory:
            return decoder.decode(data, memory.take).image.size

    with ThreadPoolExecutor(12) as threads:
        assert set(threads.map(job, files, timeout=60)) == {(40, 40)}


def test_who_is_refused_memory_leaves_the_decoder_usable(decoder: ProcessDecoder) -> None:
    def take(_: int) -> None:
        raise InterruptedError("the job is not ours any more")

    with pytest.raises(InterruptedError):
        decoder.decode(saved(noise(30, 30), "TIFF"), take)
    assert decoder.decode(saved(noise(30, 30), "TIFF"), nothing).image.size == (30, 30)


def test_an_image_that_takes_more_memory_than_its_size_fails_alone(
    misbehaving: ProcessDecoder,
) -> None:
    error = failure(misbehaving, b"eat:200")
    assert error.code is FailureCode.IMAGE_TOO_LARGE
    assert "96 MiB of memory" in error.message
    assert told(misbehaving)["pid"] in misbehaving.pids


def test_a_process_that_grew_is_replaced(misbehaving: ProcessDecoder) -> None:
    first = told(misbehaving)["pid"]
    for _ in range(3):  # each within what an image may take
        misbehaving.decode(b"eat:70", nothing)
    assert told(misbehaving)["pid"] != first


# --- what an image does to its decoder ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"crash:SIGSEGV", "crashed (SIGSEGV)"),
        (b"crash:SIGABRT", "crashed (SIGABRT)"),
        (b"crash:SIGBUS", "crashed (SIGBUS)"),
        (b"leave:3", "crashed (exit code 3)"),
        (b"leave:0", "crashed (exit code 0)"),
        (b"spin:", "took more than 1 s of processor time"),
        (b"say:hello", "gave an answer that is not valid"),
        (b'say:{"kind":"ready"}', "gave an answer that is not valid"),
        (b'say:{"kind":"done"}', "gave an answer that is not valid"),
        (b"claim:5x5", "gave an answer that is not valid"),  # 16 pixels were granted
        (b"claim:-4x-4", "gave an answer that is not valid"),
        (b"claim:1048576x1048576", "gave an answer that is not valid"),
    ],
)
def test_what_ends_a_decoder_fails_its_image_alone(
    data: bytes, said: str, misbehaving: ProcessDecoder
) -> None:
    before = told(misbehaving)["pid"]
    error = failure(misbehaving, data)
    assert isinstance(error, PermanentError)
    assert error.code is FailureCode.INVALID_IMAGE
    assert said in error.message
    eventually(lambda: not runs(before))
    image = noise(20, 20)
    assert misbehaving.decode(saved(image, "PNG"), nothing).image.tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"sleep:60", "did not end within 2 s"),
        (b"stop:", "did not end within 2 s"),
        (b"hang up:", "stopped answering"),
    ],
)
def test_a_decoder_that_hangs_is_ended(
    data: bytes, said: str, misbehaving: ProcessDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = told(misbehaving)["pid"]
    with monkeypatch.context() as impatient:
        impatient.setattr(limits, "_WALL_PER_CPU_SECOND", 2)
        error = failure(misbehaving, data)
    assert isinstance(error, PermanentError)
    assert error.code is FailureCode.INVALID_IMAGE
    assert said in error.message
    assert not runs(before)
    assert told(misbehaving)["pid"] != before


def test_a_decoder_that_is_killed_from_outside_is_not_the_images_fault(
    misbehaving: ProcessDecoder,
) -> None:
    """The kernel does so where memory runs out."""
    error = failure(misbehaving, b"crash:SIGKILL")
    assert isinstance(error, TransientError)
    assert (error.code, error.charged) == (FailureCode.OUT_OF_MEMORY, True)


def test_a_decoder_killed_while_idle_costs_no_image(misbehaving: ProcessDecoder) -> None:
    first = told(misbehaving)["pid"]
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not runs(first))
    assert told(misbehaving)["pid"] != first


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_for_the_worker_do_not_end_its_decoders(
    number: signal.Signals, misbehaving: ProcessDecoder
) -> None:
    """Ctrl-C goes to a process group, systemd's SIGTERM to all of a service's processes."""
    pid = told(misbehaving)["pid"]
    with ThreadPoolExecutor(1) as threads:
        decoding = threads.submit(misbehaving.decode, b"sleep:0.3", nothing)
        os.kill(pid, number)
        assert decoding.result(30).format == "TEST"
    assert told(misbehaving)["pid"] == pid


def test_a_fault_of_ours_is_not_blamed_on_the_image(misbehaving: ProcessDecoder) -> None:
    pid = told(misbehaving)["pid"]
    error = failure(misbehaving, b"raise:")
    assert error.code is FailureCode.INTERNAL
    assert "KeyError" in error.message
    assert told(misbehaving)["pid"] == pid


# --- what the process is ------------------------------------------------------------------------------


def test_the_process_has_no_credentials_and_nothing_heavy(
    misbehaving: ProcessDecoder,
) -> None:
    what = told(misbehaving)
    allowed = {
        "PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "TZ",
        "PYTHONPYCACHEPREFIX", "LANG", "LC_ALL", "LC_CTYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
        "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_",
    }  # fmt: skip
    assert set(what["environment"]) <= allowed
    assert what["imported"] == []
    assert what["oom"] == 800
    assert not what["can write"]
    assert not what["can shrink"]  # the worker, which has it mapped, would end with SIGBUS
    opened = [name for name in what["files"] if not name.startswith(("/dev/null", "/memfd:maskq"))]
    kinds = sorted(name.partition(":")[0] for name in opened if not name.endswith("/fd"))
    assert kinds == [f"/proc/{what['pid']}/statm", "socket"]


def test_the_process_has_limits(misbehaving: ProcessDecoder) -> None:
    text = Path(f"/proc/{told(misbehaving)['pid']}/limits").read_text()
    table = {line[:26].strip(): line[26:].split() for line in text.splitlines()}
    assert table["Max core file size"][:2] == ["0", "0"]
    assert table["Max file size"][:2] == ["0", "0"]
    assert table["Max open files"][:2] == ["64", "64"]
    assert int(table["Max address space"][1]) < 2**30
    assert int(table["Max cpu time"][0]) < 10


def test_processor_time_is_counted_for_each_image_anew(misbehaving: ProcessDecoder) -> None:
    """Given a limit of 1 s, When six images take 0.4 s each, Then none fails."""
    pid = told(misbehaving)["pid"]
    for _ in range(6):
        misbehaving.decode(b"burn:0.4", nothing)
    assert told(misbehaving)["pid"] == pid


def test_the_end_of_a_job_thread_does_not_end_the_process_it_started(
    misbehaving: ProcessDecoder,
) -> None:
    """PR_SET_PDEATHSIG means the thread that started a process."""
    pids: list[int] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: pids.append(told(misbehaving)["pid"]))
        thread.start()
        thread.join(30)
    assert len(set(pids)) == 1


def test_no_process_outlives_its_worker(tmp_path: Path) -> None:
    """Given a worker whose decoder is in an endless loop, When it is killed, Then both are gone."""
    program = tmp_path / "worker.py"
    program.write_text(
        "import threading\n"
        "from maskq_worker.decoding import DecodeLimits\n"
        "from maskq_worker.decoding.pool import ProcessDecoder\n"
        f"decoder = ProcessDecoder(DecodeLimits(10**6, 10**6, 100, 20), 1, {MISBEHAVING!r})\n"
        "decoder.start()\n"
        "print(*decoder.pids, flush=True)\n"
        "decoder.decode(b'spin:', print)\n"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path}
    command = [sys.executable, str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        eventually(lambda: _cpu_s(pid) > 0.6)  # it is at the image
        worker.kill()
    eventually(lambda: not runs(pid), 2.0)


def test_closing_ends_what_is_being_decoded_as_no_fault_of_the_image() -> None:
    decoder = ProcessDecoder(LIMITS, 1, MISBEHAVING)
    pid = told(decoder)["pid"]
    with ThreadPoolExecutor(1) as threads:
        decoding = threads.submit(decoder.decode, b"spin:", nothing)
        start = _cpu_s(pid)
        eventually(lambda: _cpu_s(pid) > start + 0.1)
        decoder.close()
        error = decoding.exception(30)
    assert isinstance(error, TransientError)
    assert (error.code, error.charged) == (FailureCode.WORKER_LOST, False)
    assert not runs(pid)
    with pytest.raises(TransientError):
        decoder.decode(saved(noise(3, 3), "PNG"), nothing)


def test_a_process_that_cannot_start_is_told_and_leaves_nothing() -> None:
    decoder = ProcessDecoder(LIMITS, 1, "maskq_worker.there_is_no_such_module")
    with pytest.raises(TransientError, match=r"cannot start a process.*exit code 1") as caught:
        decoder.start()
    assert not caught.value.charged
    assert decoder.pids == []
    decoder.close()


def test_settings_choose_where_images_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    in_thread = make_decoder(WorkerSettings.load(decode_in="thread"), concurrency=4)
    assert isinstance(in_thread, ThreadDecoder)
    made = make_decoder(WorkerSettings.load(decode_processes=3), concurrency=1)
    assert isinstance(made, ProcessDecoder)
    assert (made._most, len(made.pids)) == (3, 1)
    made.close()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert isinstance(make_decoder(WorkerSettings.load(), concurrency=4), ThreadDecoder)
    with pytest.raises(InvalidRequest, match="MASKQ_DECODE_IN=process needs Linux"):
        make_decoder(WorkerSettings.load(decode_in="process"), concurrency=4)


def _cpu_s(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def test_a_tiff_of_many_pages_counts_as_its_first() -> None:
    gray = np.zeros((40, 40, 1), np.uint8)
    asked: list[int] = []
    data = tiff([page(gray, 8, 1)] * 3, "<")
    ThreadDecoder(LIMITS).decode(data, asked.append)
    (taken,) = asked
    assert taken <= 40 * 40 * MOST_PIXEL_BYTES + 2 * len(data)


# --- what is no fault of an image ---------------------------------------------------------------------


def test_a_decoder_started_while_celery_shuts_down_works(decoder: ProcessDecoder) -> None:
    """Celery then sets a default timeout, which puts every new socket into non-blocking mode."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5)
    try:
        made = ProcessDecoder(LIMITS, 1)
        made.start()
    finally:
        socket.setdefaulttimeout(before)
    try:
        first = made.pids
        data = saved(noise(20, 20), "PNG")
        for _ in range(2):
            assert same(made.decode(data, nothing), decoder.decode(data, nothing))
        assert made.pids == first
    finally:
        made.close()


@pytest.fixture
def _late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has ended still counts as running, as in the moment between look and use."""
    monkeypatch.setattr(DecodeProcess, "alive", True)


@pytest.mark.usefixtures("_late")
def test_an_image_that_no_decoder_took_goes_to_the_next_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = ProcessDecoder(LIMITS, 1)
    made.start()
    try:
        [first] = made.pids
        os.kill(first, signal.SIGABRT)
        eventually(lambda: not runs(first))
        image = noise(20, 20)
        assert made.decode(saved(image, "PNG"), nothing).image.tobytes() == image.tobytes()
        assert made.pids != [first]
    finally:
        made.close()
    assert f"decoding process {first} ended with SIGABRT" in caplog.text


def test_decoders_that_take_no_image_are_no_fault_of_the_image() -> None:
    made = ProcessDecoder(SHORT, 1, "support.decoder_that_leaves")
    made.start()
    try:
        error = failure(made, saved(noise(20, 20), "PNG"))
    finally:
        made.close()
    assert isinstance(error, TransientError)
    assert error.code is FailureCode.INTERNAL
    assert "3 processes that decode images ended before they took the image" in error.message
    assert "exit code 7" in error.message
