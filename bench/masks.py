"""What a mask at the image's own size costs, beside the reference: time and memory of post-processing.

`python -m bench.masks`. The reference is transformers' own way: every class upsampled to the image's
size, then the argmax. Both get the same scores, of the demo checkpoint for a drawn scene, and of white
noise, where every pixel is a border (the worst case). Each runs in a process of its own, by turns;
printed are the medians of the times, the peak memory above that of the scores, how many times less, and
how many pixels differ (ties: the two best classes closer than 1e-5 of the largest score). Several sizes
(`--size 640x480 2000x1500 4000x3000`) are also written to bench/results/masks.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bench import report


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", nargs="+", default=["4000x3000"], help="of the image, px")
    options.add_argument("--scores", nargs="+", default=[*SCORES], choices=SCORES)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options.add_argument(
        "--without-reference", action="store_true", help="for sizes it cannot hold"
    )
    chosen = options.parse_args()
    if chosen.child:
        width, height = map(int, chosen.size[0].split("x"))
        print(json.dumps(child(*chosen.child, size=(height, width))))
        return
    torch.set_num_threads(2)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.scores:
            np.save(Path(folder) / "scores.npy", SCORES[name]().numpy())
            for size in chosen.size:
                rows += compare(name, Path(folder), size, chosen)
    if len(chosen.size) > 1:
        print(report.write("masks", {"runs": chosen.runs, "rows": rows}))


def compare(name: str, folder: Path, size: str, chosen: Any) -> list[dict[str, Any]]:
    """Prints the figures of this size and returns them, a row a way."""
    ways = ["ours"] if chosen.without_reference else ["ours", "reference"]
    figures: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(chosen.runs):
        for way in ways:
            figures[way].append(measured(way, folder, size))
    medians = {
        way: {key: statistics.median(one[key] for one in each) for key in each[0]}
        for way, each in figures.items()
    }
    for way, figure in medians.items():
        print(f"{name}, {size}, {way:<9}  {figure['s']:7.2f} s  {figure['mb']:7.0f} MB")
    width, height = map(int, size.split("x"))
    megapixels = width * height / 1e6
    rows = [
        {"scores": name, "megapixels": megapixels, "way": way, **figure}
        for way, figure in medians.items()
    ]
    if chosen.without_reference:
        return rows
    ours, reference = medians["ours"], medians["reference"]
    masks = [np.load(folder / f"{way}.npy") for way in ways]
    print(
        f"{name}: {reference['s'] / ours['s']:.1f} times less time, "
        f"{reference['mb'] / max(ours['mb'], 1):.0f} times less memory, "
        f"{differing(folder, *masks)}"
    )
    return rows


def differing(folder: Path, ours: np.ndarray, other: np.ndarray) -> str:
    """How many pixels differ, and how many of those are no ties; the scores in float64."""
    from maskq_worker.model.masks.comparison import TIE

    y, x = np.nonzero(ours != other)
    scores = torch.from_numpy(np.load(folder / "scores.npy"))
    untied = 0
    for row in np.unique(y):  # one output row at a time: all at once would not fit
        columns = x[y == row]
        exact = exact_row(scores, int(row), ours.shape)
        a, b = (mask[row, columns].astype(np.int64) for mask in (ours, other))
        gap = (exact[a, columns] - exact[b, columns]).abs()
        untied += int((gap > TIE * scores.abs().max()).sum())
    return f"{len(y)} of {ours.size} pixels differ, {untied} of them untied"


def exact_row(scores: torch.Tensor, row: int, size: tuple[int, ...]) -> torch.Tensor:
    """Scores (C, W) of one output row by float64 arithmetic."""
    y = np.clip((row + 0.5) * scores.shape[1] / size[0] - 0.5, 0, scores.shape[1] - 1)
    top = int(y)
    bottom = min(top + 1, scores.shape[1] - 1)
    line = scores[:, top].double() * (1 - (y - top)) + scores[:, bottom].double() * (y - top)
    return torch.nn.functional.interpolate(
        line[None], size=size[1], mode="linear", align_corners=False
    )[0]


def measured(way: str, folder: Path, size: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.masks", "--size", size, "--child", way]
    command += [str(folder / "scores.npy"), str(folder / f"{way}.npy")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def child(way: str, source: str, target: str, *, size: tuple[int, int]) -> dict[str, float]:
    """One mask in a fresh process: seconds, and MB above what the scores and the libraries take."""
    from maskq_worker.model.masks.bounded import upsampled_argmax

    torch.set_num_threads(2)
    scores = torch.from_numpy(np.load(source))
    upsampled_argmax(scores, (64, 64))  # what is set up once
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (Linux)
    before = _peak_mb()
    began = time.perf_counter()
    if way == "ours":
        mask = upsampled_argmax(scores, size)
    else:
        whole = torch.nn.functional.interpolate(
            scores[None], size=size, mode="bilinear", align_corners=False
        )
        mask = whole[0].argmax(dim=0).numpy().astype(np.uint8)
    took = time.perf_counter() - began
    peak = _peak_mb() - before
    np.save(target, mask)
    return {"s": took, "mb": peak}


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def demo_scores() -> torch.Tensor:
    """(150, h, w) of the demo checkpoint, for a scene it never saw."""
    from demo_scenes.scenes import draw
    from demo_scenes.seeds import held_out

    from maskq_worker.model import load_segmenter
    from maskq_worker.settings import WorkerSettings

    segmenter = load_segmenter(WorkerSettings(model="demo", device="cpu"))
    item = segmenter.prepare(draw(held_out(5, 0), size=(1280, 960)).image)
    return segmenter.backend.forward(item.views.each[0].pixels[None])[0]


def noise() -> torch.Tensor:
    return torch.randn(150, 288, 288, generator=torch.Generator().manual_seed(1))


SCORES: Final[dict[str, Callable[[], torch.Tensor]]] = {
    "demo scene": demo_scores,
    "white noise": noise,
}


if __name__ == "__main__":
    main()
