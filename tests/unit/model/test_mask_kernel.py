"""The Triton kernel, in Triton's interpreter: its masks are interpolate + argmax, but for ties."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from maskq_worker.model.cuda.masks import Tile
from maskq_worker.model.masks.bounded import mask_with_confidence, upsampled_argmax
from maskq_worker.model.masks.comparison import untied_differences

pytestmark = pytest.mark.slow

# The interpreter's time goes by programs, not by pixels.
LARGE = Tile(height=32, width=64, lanes=64)


@dataclass(frozen=True)
class Kernel:
    mask: NDArray[Any]
    unsound: bool
    confidence: NDArray[Any]


Draw = Callable[..., Kernel]


@pytest.fixture(scope="module")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Draw]:
    folder = tmp_path_factory.mktemp("kernel")
    script = Path(__file__).parents[2] / "interpreted_kernel.py"
    numbers = itertools.count()
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        assert child.stdout

        def draw(
            scores: torch.Tensor,
            size: tuple[int, int],
            *,
            tile: Tile = LARGE,
            confidence: bool = False,
            by_place: bool = True,
        ) -> Kernel:
            number = next(numbers)
            asked = {
                "scores": str(folder / f"{number}.npy"),
                "answer": str(folder / f"{number}.npz"),
                "size": size,
                "tile": astuple(tile),
                "confidence": confidence,
                "by_place": by_place,
            }
            np.save(asked["scores"], scores.numpy())
            print(json.dumps(asked), file=child.stdin, flush=True)
            assert child.stdout.readline() == "done\n", "the kernel failed; its traceback is above"
            with np.load(asked["answer"]) as answer:
                return Kernel(answer["mask"], bool(answer["unsound"][0]), answer["confidence"])

        yield draw
        child.stdin.close()
        child.wait(30)


def noise(classes: int, height: int, width: int) -> torch.Tensor:
    """Every cell is a border between regions: the hardest case."""
    draw = torch.Generator().manual_seed(classes * 1000 + height + width)
    return 10 * torch.randn(classes, height, width, generator=draw)


def regions(classes: int, side: int) -> torch.Tensor:
    """Large areas of one class, as in photographs."""
    return interpolate(noise(classes, 5, 5)[None], size=(side, side), mode="bicubic")[0]


def reference(scores: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
    values = interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]
    return values.argmax(dim=0).numpy()


def assert_same_but_for_ties(
    scores: torch.Tensor, mask: NDArray[Any], size: tuple[int, int]
) -> None:
    for expected in (reference(scores, size), upsampled_argmax(scores, size)):
        assert mask.shape == size
        assert (mask != expected).mean() < 1e-3
        assert untied_differences(scores, mask, expected.astype(mask.dtype)) == 0


@pytest.mark.parametrize(
    ("classes", "source", "target"),
    [
        (150, (24, 24), (60, 67)),  # up, by no whole number
        (150, (24, 24), (24, 24)),  # as it is
        (150, (48, 48), (17, 31)),  # down
        (150, (7, 9), (120, 130)),  # far up
        (7, (20, 20), (90, 9)),  # up and down
        (7, (90, 40), (499, 3)),  # far up and far down
        (7, (40, 90), (3, 503)),
        (2, (33, 17), (75, 95)),
        (5, (1, 1), (9, 7)),  # a single score
        (5, (1, 1), (1, 1)),
        (5, (1, 8), (40, 1)),  # one row, one column
        (5, (8, 1), (1, 40)),
        (5, (50, 70), (1, 1)),
        (1, (4, 4), (8, 8)),  # a single class
        (31, (6, 6), (19, 23)),  # around the number of lanes
        (32, (6, 6), (19, 23)),
        (33, (6, 6), (19, 23)),
        (256, (6, 6), (19, 23)),  # the most that 8 bits hold
    ],
)
def test_the_mask_is_the_references(
    draw: Draw, classes: int, source: tuple[int, int], target: tuple[int, int]
) -> None:
    scores = noise(classes, *source)
    drawn = draw(scores, target)
    assert drawn.mask.dtype == np.uint8
    assert not drawn.unsound
    assert_same_but_for_ties(scores, drawn.mask, target)


@pytest.mark.parametrize("classes", [257, 300])
def test_more_than_256_classes_need_16_bits(draw: Draw, classes: int) -> None:
    scores = noise(classes, 8, 8)
    drawn = draw(scores, (30, 21))
    assert drawn.mask.dtype == np.uint16
    assert drawn.mask.max() > 255
    assert_same_but_for_ties(scores, drawn.mask, (30, 21))


def test_large_regions_too(draw: Draw) -> None:
    scores, size = regions(150, 30), (90, 61)
    drawn = draw(scores, size)
    assert len(np.unique(drawn.mask)) > 5
    assert_same_but_for_ties(scores, drawn.mask, size)


def test_a_class_that_is_best_at_no_corner_can_win_between_them(draw: Draw) -> None:
    scores = torch.tensor([[10.0, 0.0], [0.0, 10.0], [9.0, 9.0]])[:, None, :]  # (3, 1, 2)
    drawn = draw(scores, (1, 9))
    assert set(drawn.mask[0]) == {0, 1, 2}
    assert_same_but_for_ties(scores, drawn.mask, (1, 9))


@pytest.mark.parametrize("confidence", [False, True])
def test_of_equal_classes_the_first_wins_as_torch_has_it(draw: Draw, confidence: bool) -> None:
    """Whole numbers at twice the size: all arithmetic is exact, so ties are ties everywhere."""
    scores = torch.randint(0, 3, (70, 9, 7), generator=torch.Generator().manual_seed(3)).float()
    drawn = draw(scores, (18, 14), confidence=confidence)
    assert np.array_equal(drawn.mask, reference(scores, (18, 14)))
    same = draw(torch.full((40, 3, 3), -2.5), (5, 7), confidence=confidence)
    assert not same.mask.any()


@pytest.mark.parametrize("tile", [Tile(), Tile(1, 16, 8), Tile(16, 2, 64)], ids=str)
def test_the_mask_does_not_depend_on_the_tile(draw: Draw, tile: Tile) -> None:
    scores, size = noise(45, 4, 5), (9, 21)
    one, other = (draw(scores, size, tile=which, confidence=True) for which in (tile, LARGE))
    assert np.array_equal(one.mask, other.mask)
    assert np.abs(one.confidence.astype(int) - other.confidence).max() <= 1


def test_scores_may_lie_by_class_or_by_place(draw: Draw) -> None:
    scores = noise(40, 11, 6)
    one, other = (draw(scores, (30, 31), by_place=way).mask for way in (True, False))
    assert np.array_equal(one, other)


def test_the_scores_are_left_as_they_were(draw: Draw, tmp_path: Path) -> None:
    scores = noise(40, 11, 6)
    before = scores.clone()
    draw(scores, (30, 31), by_place=False)
    assert torch.equal(scores, before)


def test_a_nan_is_the_highest_score_as_torch_has_it(draw: Draw) -> None:
    scores = noise(40, 9, 9)
    place = torch.rand(scores.shape, generator=torch.Generator().manual_seed(7)) < 0.002
    scores[place] = torch.nan
    drawn = draw(scores, (27, 33))
    assert drawn.unsound
    assert np.array_equal(drawn.mask, reference(scores, (27, 33)))


def test_nan_everywhere_is_still_a_mask(draw: Draw) -> None:
    drawn = draw(torch.full((5, 4, 4), torch.nan), (9, 9), confidence=True)
    assert drawn.unsound
    assert not drawn.mask.any()
    assert not drawn.confidence.any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("at", [(0, 0, 0), (39, 10, 5), (33, 4, 2)])
def test_one_score_that_is_no_number_is_noticed(
    draw: Draw, value: float, at: tuple[int, int, int]
) -> None:
    scores = noise(40, 11, 6)
    scores[at] = value
    drawn = draw(scores, (13, 12))
    assert drawn.unsound
    assert drawn.mask.max() < 40


def test_large_scores_are_numbers(draw: Draw) -> None:
    scores = noise(40, 5, 5) * 1e36
    drawn = draw(scores, (13, 12))
    assert not drawn.unsound
    assert_same_but_for_ties(scores, drawn.mask, (13, 12))


@pytest.mark.parametrize(
    ("scores", "target"),
    [(noise(9, 12, 12), (50, 41)), (regions(150, 20), (32, 60)), (noise(300, 6, 6), (13, 29))],
    ids=["noise", "regions", "300 classes"],
)
def test_confidence_is_the_winner_s_softmax(
    draw: Draw, scores: torch.Tensor, target: tuple[int, int]
) -> None:
    drawn = draw(scores, target, confidence=True)
    exact = interpolate(scores[None].double(), size=target, mode="bilinear", align_corners=False)
    expected = exact[0].softmax(dim=0).max(dim=0).values.numpy() * 255
    assert drawn.confidence.dtype == np.uint8
    assert np.abs(drawn.confidence - expected).max() <= 0.51
    assert_same_but_for_ties(scores, drawn.mask, target)
    _, by_torch = mask_with_confidence(scores, target)
    assert np.abs(drawn.confidence.astype(int) - by_torch).max() <= 1


# For the cards themselves the compiler can be asked without one.

BEST = {"scores": "*fp32", "best": "*u8", "unsound": "*i32", "places": "i32", "classes": "i32"}
DRAW = {
    "scores": "*fp32", "best": "*u8", "rows": "*i32", "row_weights": "*fp32", "columns": "*i32",
    "column_weights": "*fp32", "mask": "*u8", "confidence": "*u8", "classes": "i32", "width": "i32",
    "height_out": "i32", "width_out": "i32",
}  # fmt: skip


@pytest.mark.parametrize("capability", [75, 89, 90], ids=["T4", "L4", "H200"])
def test_it_compiles_for_the_cards(
    capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from maskq_worker.model.cuda import kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tile = Tile()
    sizes = {"HEIGHT": tile.height, "WIDTH": tile.width, "LANES": tile.lanes}
    best = {"PLACES": tile.height * tile.width, "LANES": tile.lanes}
    for function, types, constants in (
        (kernel.best_classes, BEST, best),
        (kernel.draw_mask, DRAW, {**sizes, "CONFIDENCE": False}),
        (kernel.draw_mask, DRAW, {**sizes, "CONFIDENCE": True}),
    ):
        source = ASTSource(function, {**types, **dict.fromkeys(constants, "constexpr")}, constants)
        options = {"num_warps": tile.warps, "enable_fp_fusion": True}
        built = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        assert built.asm["cubin"]
        assert built.metadata.shared < 48 * 1024
