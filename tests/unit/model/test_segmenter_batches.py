"""Each image of a batch gets its own mask or its own error."""

from __future__ import annotations

import threading
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
from maskq_worker.errors import PermanentError
from maskq_worker.model import (
    native_backend,
)
from maskq_worker.model.segmenter import NoContext

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
def test_a_batch_keeps_its_scores_while_the_next_is_computed(original: Path, backend: str) -> None:
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


@pytest.mark.parametrize("largest", [0, 2**30])
def test_the_images_of_a_full_batch_are_computed_side_by_side_with_a_share_of_the_cores(
    original: Path, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    # Given images that a network on a CPU has computed alone, with small and large masks
    monkeypatch.setattr("maskq_worker.model.pending._SMALL", 0)
    monkeypatch.setattr("maskq_worker.model.pending._LARGE", largest)
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    segmenter = load(original, max_batch_size=2)
    items = [segmenter.prepare(photo(width, 30, seed=width)) for width in (40, 50)]
    alone = [segmenter.run([item])[0] for item in items]
    # When they are a batch, of which no forward ends before the other has begun
    both, real = threading.Barrier(2, timeout=30), segmenter.backend.forward
    shares = list[int]()
    monkeypatch.setattr("torch.set_num_threads", shares.append)

    def forward(pixels: Any) -> torch.Tensor:
        assert len(pixels) == 1
        both.wait()
        return real(pixels)

    monkeypatch.setattr(segmenter.backend, "forward", forward)
    ended = segmenter.submit_batch(items, Context()).wait()
    # Then each has its own mask, to the bit, and had half of the cores
    for pending, one in zip(ended, alone, strict=True):
        assert np.array_equal(pending.wait().mask, one.mask)
    assert shares == [2, 2]


def test_a_batch_that_does_not_fit_the_memory_is_refused_as_a_whole(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = load(original, max_batch_size=2)
    real = segmenter.backend.forward

    def forward(pixels: Any) -> torch.Tensor:
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError("no room")
        return real(pixels)

    monkeypatch.setattr(segmenter.backend, "forward", forward)
    items = [segmenter.prepare(photo(40, 30)) for _ in range(2)]
    with pytest.raises(PermanentError) as raised:
        segmenter.submit_batch(items, Context())
    assert raised.value.code is FailureCode.OUT_OF_MEMORY
    [alone] = segmenter.submit_batch(items[:1], Context()).wait()  # as the batcher tries again
    assert alone.wait().mask.shape == (30, 40)


def test_a_batch_that_is_not_full_is_one_forward_on_all_cores(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter, forwards = load(original, max_batch_size=3), list[tuple[int, threading.Thread]]()
    real = segmenter.backend.forward

    def forward(pixels: Any) -> torch.Tensor:
        forwards.append((len(pixels), threading.current_thread()))
        return real(pixels)

    monkeypatch.setattr(segmenter.backend, "forward", forward)
    segmenter.submit_batch([segmenter.prepare(photo(40, 30))] * 2, Context()).wait()
    assert forwards == [(2, threading.current_thread())]


def test_one_image_is_computed_at_a_time_where_a_network_cannot_compute_several(
    original: Path,
) -> None:
    assert load(original, backend="transformers").max_batch_size == 1


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
