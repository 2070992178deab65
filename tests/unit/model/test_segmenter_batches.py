"""Each image of a batch gets its own mask or its own error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import model_reference
from support.model_reference import load, photo, run_one

from maskq.contract import FailureCode
from maskq.contract.options import Mode
from maskq_worker.batching.interface import EndedBatch
from maskq_worker.errors import PermanentError
from maskq_worker.model import (
    native_backend,
)
from maskq_worker.model.pending import ReadyOutput
from maskq_worker.model.segmenter import NoContext
from maskq_worker.process.cores import Machine

pytestmark = pytest.mark.slow

original = model_reference.original


def test_a_batch_gives_each_image_its_own_mask(original: Path) -> None:
    segmenter = load(original)
    images = [photo(97, 61), photo(33, 80, seed=9), photo(64, 64, seed=10)]
    alone = [run_one(segmenter, image) for image in images]
    batch = segmenter.run([segmenter.prepare(image) for image in images])
    for one, together, image in zip(alone, batch, images, strict=True):
        assert not isinstance(together, Exception)
        assert together.mask.shape == (image.height, image.width)
        assert together.logits is None  # not asked for
        assert (together.mask == one.mask).mean() > 0.999  # a batch may round differently


@pytest.mark.parametrize("backend", ["transformers", "auto"])
def test_a_batch_keeps_its_scores_while_the_next_is_computed(
    original: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # one image at a time
    segmenter = load(original, backend=backend)
    items = [segmenter.prepare(photo(40, 30, seed=seed)) for seed in (1, 2)]
    alone = [segmenter.run([item])[0].mask for item in items]
    pending = [segmenter.submit_batch([item], NoContext()) for item in items]
    for batch, mask in zip(pending, alone, strict=True):
        assert np.array_equal(batch.wait()[0].wait().mask, mask)


@dataclass
class Context:
    """What a batcher tells the model."""

    has_backlog: bool = False
    is_alone: bool = True
    heartbeats: int = 0

    def heartbeat(self) -> None:
        self.heartbeats += 1


def test_each_forward_of_a_batch_gives_a_heartbeat(original: Path) -> None:
    segmenter, context = load(original, max_batch_size=2), Context()
    segmenter.submit_batch([segmenter.prepare(photo(64, 64), mode=Mode.MULTISCALE)], context)
    assert context.heartbeats == 3  # six views, of which two share each size


@pytest.mark.parametrize(
    ("backend", "smallest", "largest", "has_backlog", "beside"),
    [
        ("auto", 0, 2**30, True, False),  # neither small nor large
        ("auto", 0, 2**30, False, False),
        ("auto", 2**30, 2**30, False, True),  # small
        ("auto", 0, 0, True, True),  # large
        ("auto", 0, 0, False, False),
        ("transformers", 0, 0, True, False),
    ],
)
def test_the_caller_computes_a_small_mask_and_a_large_one_while_another_batch_waits(
    original: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    smallest: int,
    largest: int,
    has_backlog: bool,
    beside: bool,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # one image at a time
    # Given a mask that is small or large, and a model that is wanted for another forward or is not
    monkeypatch.setattr("maskq_worker.model.pending._SMALL", smallest)
    monkeypatch.setattr("maskq_worker.model.pending._LARGE", largest)
    segmenter, drawn = load(original, backend=backend), list[int]()
    expected = segmenter.run([segmenter.prepare(photo(40, 30))])[0].mask
    real = segmenter.backend.mask

    def mask(*args: Any) -> Any:
        drawn.append(torch.get_num_threads())
        return real(*args)

    monkeypatch.setattr(segmenter.backend, "mask", mask)
    # When a batch has ended, and a thread asks for its mask
    context = Context(has_backlog=has_backlog)
    pending = segmenter.submit_batch([segmenter.prepare(photo(40, 30))], context)
    [pending_output] = pending.wait()
    assert len(drawn) == (not beside)
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(2,)) as asking:
        output = asking.submit(pending_output.wait).result()
    torch.set_num_threads(before)  # a thread's own, but also what later ones begin with
    # Then it is the same mask, drawn once; beside a forward by one thread
    assert np.array_equal(output.mask, expected)
    assert len(drawn) == 1
    if beside:
        assert drawn == [1]


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A thread's number of torch's threads is also what later ones begin with."""
    two = Machine((frozenset(range(2)),), 2, None)
    monkeypatch.setattr("maskq_worker.process.capacity.Machine.read", lambda: two)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_cores")
def test_images_are_computed_side_by_side_on_a_core_each_and_one_alone_on_all(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given images that a network on a CPU has computed alone
    monkeypatch.setattr("maskq_worker.model.pending._SMALL", 0)
    segmenter = load(original)
    items = [segmenter.prepare(photo(width, 30, seed=width)) for width in (40, 50)]
    alone = [segmenter.run([item])[0] for item in items]
    both, real = threading.Barrier(2, timeout=30), segmenter.backend.forward
    threads = list[int]()

    def forward(pixels: Any) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        if len(threads) <= 2:
            both.wait()
        return real(pixels)

    monkeypatch.setattr(segmenter.backend, "forward", forward)

    # When two run at the same time: no forward ends before the other has begun
    pending = [segmenter.submit_batch([item], Context(is_alone=False)) for item in items]
    with ThreadPoolExecutor(2) as waiting:
        outputs = [output for [output] in waiting.map(lambda batch: batch.wait(), pending)]

    # Then each has its own mask, to the bit, and had one core
    for output, one in zip(outputs, alone, strict=True):
        assert isinstance(output, ReadyOutput)
        assert np.array_equal(output.wait().mask, one.mask)
    assert threads == [1, 1]

    # And one that is alone is computed before the call returns, on all cores
    torch.set_num_threads(2)  # of this thread, which has computed no mask
    ended = segmenter.submit_batch(items[:1], Context(is_alone=True))
    assert isinstance(ended, EndedBatch)
    assert threads == [1, 1, 2]
    [output] = ended.wait()
    assert np.array_equal(output.wait().mask, alone[0].mask)


@pytest.mark.usefixtures("two_cores")
def test_an_image_of_more_work_is_not_computed_beside_another_of_its_kind(original: Path) -> None:
    segmenter, context = load(original), Context(is_alone=False)
    segmenter.submit_batch([segmenter.prepare(photo(64, 64), mode=Mode.MULTISCALE)], context)
    assert context.heartbeats == 6  # it is computed, and says of each forward that it goes on


@pytest.mark.usefixtures("two_cores")
def test_an_error_beside_another_image_is_raised_to_the_one_who_waits(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = load(original)

    def forward(pixels: Any) -> torch.Tensor:
        raise MemoryError("no room")

    monkeypatch.setattr(segmenter.backend, "forward", forward)
    pending = segmenter.submit_batch([segmenter.prepare(photo(40, 30))], Context(is_alone=False))
    with pytest.raises(PermanentError) as raised:
        pending.wait()
    assert raised.value.code is FailureCode.OUT_OF_MEMORY


@pytest.mark.usefixtures("two_cores")
def test_images_run_one_after_another_where_that_is_set_or_the_network_needs_it(
    original: Path,
) -> None:
    assert load(original).is_side_by_side
    assert not load(original, max_batch_size=2).is_side_by_side
    assert not load(original, backend="transformers").is_side_by_side


def test_the_work_of_an_image_counts_its_views_and_their_pixels(original: Path) -> None:
    segmenter = load(original)
    assert segmenter.weight(segmenter.prepare(photo(640, 480))) == 1
    assert segmenter.weight(segmenter.prepare(photo(160, 90), mode=Mode.ASPECT)) == 2
    assert segmenter.weight(segmenter.prepare(photo(64, 64), mode=Mode.MULTISCALE)) == 6


def test_an_error_at_one_mask_stays_with_its_image(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = native_backend.upsampled_argmax

    def failing(logits: torch.Tensor, size: tuple[int, int]) -> Any:
        if size == (13, 13):
            raise MemoryError("no room")
        return real(logits, size)

    monkeypatch.setattr(native_backend, "upsampled_argmax", failing)
    segmenter = load(original)
    items = [segmenter.prepare(photo(width, 13)) for width in (20, 13, 20)]
    first, failed, last = segmenter.run(items)
    assert isinstance(failed, PermanentError)
    assert failed.code is FailureCode.OUT_OF_MEMORY
    assert np.array_equal(first.mask, last.mask)  # type: ignore[union-attr]


def test_scores_that_are_no_numbers_fail_only_their_own_image(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = load(original)
    real = segmenter.backend.forward

    def forward(pixels: Any) -> torch.Tensor:
        scores = real(pixels).clone()
        scores[[not image.any() for image in pixels]] = torch.nan
        return scores

    monkeypatch.setattr(segmenter.backend, "forward", forward)
    good = segmenter.prepare(photo(20, 30))
    bad = segmenter.prepare(Image.new("RGB", (20, 30)))
    failed, output = segmenter.run([bad, good])
    assert isinstance(failed, PermanentError)
    assert "float32" in failed.message
    assert not isinstance(output, Exception)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_what_does_not_fit_the_device_says_so(
    original: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def forward(_: Any) -> None:
        raise error

    segmenter = load(original)
    monkeypatch.setattr(segmenter.backend, "forward", forward)
    with pytest.raises(PermanentError) as caught:
        segmenter.run([segmenter.prepare(photo(20, 30))])
    assert caught.value.code is FailureCode.OUT_OF_MEMORY


def test_the_cpu_s_allocator_says_what_is_looked_for(original: Path) -> None:
    """Its message is all there is to know it by."""
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        torch.empty(2**50, dtype=torch.uint8)
