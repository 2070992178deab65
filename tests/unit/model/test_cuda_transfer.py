"""Copies to a card and back, as far as a CPU goes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from cards import images

from maskq_worker.model.cuda import transfer
from maskq_worker.model.cuda.transfer import Download, Upload

CPU = torch.device("cpu")


def test_images_arrive_as_they_are_also_mirrored_and_after_larger_ones() -> None:
    upload = Upload(CPU)
    for seed, (count, side) in enumerate([(2, 8), (3, 16), (1, 4), (3, 16)]):
        arrays = images(count, side, seed=seed).numpy()
        given = [array[:, ::-1] for array in arrays]
        with upload(given) as there:
            assert there.shape == (count, side, side, 3)
            assert np.array_equal(there.numpy(), arrays[:, :, ::-1])
        with upload(arrays) as there:
            assert np.array_equal(there.numpy(), arrays)


def test_a_buffer_that_found_no_room_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    upload, empty, arrays = Upload(CPU), torch.empty, images(2, 8).numpy()

    def refusing(*shape: Any, **options: Any) -> torch.Tensor:
        if "device" in options:
            raise torch.OutOfMemoryError("there is no room")
        return empty(*shape, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", refusing)
        for _ in range(2):  # both buffers
            with pytest.raises(torch.OutOfMemoryError), upload(arrays):
                pass
    for _ in range(2):
        with upload(arrays) as there:
            assert np.array_equal(there.numpy(), arrays)


def test_a_batch_stays_while_the_next_one_arrives() -> None:
    """Two buffers: the device may still read the one while the other is filled."""
    upload = Upload(CPU)
    first, second = images(2, seed=1), images(2, seed=2)
    with upload(first.numpy()) as there, upload(second.numpy()) as other:
        assert torch.equal(there, first)
        assert torch.equal(other, second)


def test_tensors_come_back_in_order_and_are_the_caller_s_own() -> None:
    source = [torch.arange(6).view(2, 3), torch.tensor([300], dtype=torch.uint16)]
    pending = Download(CPU).start(*source)
    arrays = pending.wait()
    assert [array.tolist() for array in arrays] == [[[0, 1, 2], [3, 4, 5]], [300]]
    arrays[0][:] = 9
    assert source[0].max() == 5
    assert pending.wait()[0].max() == 5


def test_what_is_huge_is_copied_by_whoever_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_LARGEST_PINNED", 16)
    small, huge = torch.arange(2), torch.arange(24).view(4, 6).T.contiguous()
    pending = Download(CPU).start(small, huge)
    huge += 1  # too early to be its copy
    assert [array.tolist() for array in pending.wait()] == [small.tolist(), huge.tolist()]
    pending.wait()[1][:] = 0
    assert huge.max() == 24


class Streams:
    """Writes down what waits for what, as torch.cuda would be asked to."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._names = iter(["filled 0", "read 0", "filled 1", "read 1"])

    def Stream(self) -> str:
        return "copies"

    def current_stream(self) -> str:
        return "compute"

    def stream(self, stream: str) -> Any:
        self.said.append(f"on {stream}")
        return nullcontext()

    def synchronize(self) -> None:
        self.said.append("all")

    def Event(self) -> Any:
        name, said = next(self._names), self.said

        class Event:
            def record(self, stream: str) -> None:
                said.append(f"{name} after {stream}")

            def wait(self, stream: str) -> None:
                said.append(f"{stream} waits for {name}")

            def synchronize(self) -> None:
                said.append(f"thread waits for {name}")

        return Event()


def test_a_buffer_is_filled_again_only_when_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams()
    monkeypatch.setattr(torch, "get_device_module", lambda device: streams)
    upload = Upload(CPU)
    for batch in range(3):
        streams.said.clear()
        with upload(images(1).numpy()):
            streams.said.append("forward")
        assert [line for line in streams.said if line != "all"] == [
            f"thread waits for filled {batch % 2}",  # before pinned memory is written
            f"copies waits for read {batch % 2}",  # before the device's is
            "on copies",
            f"filled {batch % 2} after copies",
            f"compute waits for filled {batch % 2}",
            "forward",
            f"read {batch % 2} after compute",
        ]
