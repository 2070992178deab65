"""Graphs by size of batch, with a stand-in for what a card records."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from cards import capture, images, seconds

from maskq_worker.model.cuda import graphs as graphs_module
from maskq_worker.model.cuda.buckets import Plan, bucket_sizes
from maskq_worker.model.cuda.graphs import Captured, Compute, Graphs

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("largest", "expected"),
    [(1, (1,)), (2, (1, 2)), (5, (1, 2, 4, 5)), (16, (1, 2, 4, 8, 16)), (24, (1, 2, 4, 8, 16, 24))],
)
def test_buckets_are_powers_of_two_and_the_largest_batch(
    largest: int, expected: tuple[int, ...]
) -> None:
    assert bucket_sizes(largest) == expected


STEEP = {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0}  # a card that is full with one image
FLAT = {1: 5.0, 2: 5.2, 4: 5.5, 8: 6.0}  # one that idles


@pytest.mark.parametrize(
    ("seconds", "images", "expected"),
    [
        (STEEP, 1, [(1, 1)]),
        (STEEP, 8, [(8, 8)]),
        (STEEP, 5, [(4, 4), (1, 1)]),
        (STEEP, 7, [(4, 4), (2, 2), (1, 1)]),
        (FLAT, 5, [(8, 5)]),
        (FLAT, 3, [(4, 3)]),
        (FLAT, 9, [(8, 8), (1, 1)]),
        ({1: 3.0, 2: 4.0}, 5, [(2, 2), (2, 2), (1, 1)]),  # larger ones could not be captured
        ({4: 4.0}, 1, [(4, 1)]),  # nor smaller ones
        ({1: 1.0, 2: 2.0, 4: 9.0}, 4, [(2, 2), (2, 2)]),  # of equals the fewest parts
    ],
)
def test_a_batch_is_cut_as_costs_least(
    seconds: dict[int, float], images: int, expected: list[tuple[int, int]]
) -> None:
    plan = Plan(seconds)
    parts = plan.split(images)
    assert sum(seconds[bucket] for bucket, _ in parts) == sum(seconds[b] for b, _ in expected)
    assert sorted(parts) == sorted(expected)
    assert plan.split(images) == parts


def scores_of(pixels: torch.Tensor) -> torch.Tensor:
    """A stand-in for the network: (N, 2, H, W), each image's own."""
    values = pixels.float()
    return torch.stack([values[..., 0] - values[..., 1], values.sum(dim=3)], dim=1)


def graphs(
    buckets: Sequence[int] = (1, 2, 4),
    *,
    compute: Compute = scores_of,
    capture: Any = capture,
    costs: Any = seconds,
) -> Graphs:
    return Graphs(compute, buckets, 8, CPU, capture=capture, seconds=costs)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("per_image", [0.0, 1.0])  # padded, or in parts
def test_graphs_give_every_image_its_own_scores(count: int, per_image: float) -> None:
    costs = iter([1.0 + 4 * per_image, 1.0 + 2 * per_image, 1.0 + per_image])
    all_graphs = graphs(costs=lambda run: next(costs))
    for seed in range(3):  # what the run before left does not matter
        pixels = images(count, seed=seed)
        assert torch.equal(all_graphs(pixels), scores_of(pixels))


def test_a_batch_is_padded_where_that_is_cheaper() -> None:
    runs: list[int] = []

    def counted(compute: Compute, pixels: torch.Tensor) -> Captured:
        captured = capture(compute, pixels)

        def replay() -> None:
            runs.append(len(pixels))
            captured.replay()

        return Captured(replay, captured.scores)

    padded = graphs(capture=counted, costs=lambda run: 1.0)
    runs.clear()
    assert len(padded(images(3))) == 3
    assert runs == [4]


def test_large_batches_are_captured_first() -> None:
    """Graphs share memory: the small ones then fit into what the large one took."""
    order: list[int] = []

    def noted(compute: Compute, pixels: torch.Tensor) -> Captured:
        order.append(len(pixels))
        return capture(compute, pixels)

    graphs((1, 2, 8, 4), capture=noted)
    assert order == [8, 4, 2, 1]


def test_graphs_take_only_the_size_they_were_captured_for() -> None:
    assert graphs().takes(images(3))
    assert not graphs().takes(images(3, side=16))


def test_a_bucket_that_cannot_be_captured_is_left_out_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def short(compute: Compute, pixels: torch.Tensor) -> Captured:
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return capture(compute, pixels)

    with caplog.at_level(logging.WARNING, logger=graphs_module.__name__):
        left = graphs(capture=short)
    [record] = caplog.records
    assert record.getMessage() == "no CUDA graph for batches of 4 (CUDA out of memory.)"
    assert sorted(left.seconds) == [1, 2]
    assert torch.equal(left(images(5)), scores_of(images(5)))


def frozen(compute: Compute, pixels: torch.Tensor) -> Captured:
    """A capture that missed its input: it answers for the pixels that were there then."""
    return Captured(lambda: None, compute(pixels).clone())


def nowhere(compute: Compute, pixels: torch.Tensor) -> Captured:
    return Captured(lambda: None, torch.full_like(compute(pixels), torch.nan))


@pytest.mark.parametrize("wrong", [frozen, nowhere])
def test_a_graph_that_answers_wrongly_is_not_used(
    wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError, match="no CUDA graph"):
        graphs(capture=wrong)
    assert len(caplog.records) == 3
    assert "an eager forward's" in caplog.text


@pytest.mark.parametrize("same", [True, False])
def test_noise_that_overflows_is_no_reason_against_a_graph_that_overflows_in_the_same_places(
    same: bool,
) -> None:
    def overflowing(pixels: torch.Tensor) -> torch.Tensor:
        scores = scores_of(pixels).clone()
        scores[:, 0, 0, 0] = torch.inf
        return scores

    def captured(compute: Compute, pixels: torch.Tensor) -> Captured:
        return capture(compute if same else scores_of, pixels)

    if same:
        assert sorted(graphs(compute=overflowing, capture=captured).seconds) == [1, 2, 4]
        return
    with pytest.raises(RuntimeError, match="no CUDA graph"):
        graphs(compute=overflowing, capture=captured)
