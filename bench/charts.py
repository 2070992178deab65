"""The pictures of docs/benchmarks.md, drawn from bench/results: `python -m bench.charts`.

It needs matplotlib, which the extra `peers` installs. `make peers` draws its own picture as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench import report

IMAGES: Final = report.RESULTS.parents[1] / "docs" / "images"
OURS: Final = "#1f5fa8"
OTHERS: Final = "#9aa5b1"
COLOURS: Final = (OURS, "#c4541a", "#3b8a4c", "#7a4fa3")
WAYS: Final = {
    "bare, transformers float32": "forward of transformers, float32",
    "bare, transformers float16": "forward of transformers, float16",
    "bare, ours float16, graphs": "forward of maskq, float16",
    "to masks in memory, float16": "forward and masks of maskq, float16",
}
WIDTH_IN: Final = 8.0
DPI: Final = 90


def main() -> None:
    for draw in (throughput_by_batch, latency_under_load, memory_by_size):
        print(draw())


def throughput_by_batch() -> Path:
    """DPT-Large on an H200, from `python -m bench.gpu --only forward`."""
    rows = [row for row in results("gpu-h200-forward")["forward"]["rows"] if row["way"] in WAYS]
    figure, (axes,) = panels(1, height_in=3.6)
    for way, each in _by(rows, "way").items():
        batches, rates = [row["batch"] for row in each], [row["images_s"] for row in each]
        axes.plot(batches, rates, ".-", label=WAYS[way])
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("images in a batch")
    axes.set_title("DPT-Large, 480x480, on an H200: images a second")
    axes.legend(fontsize=8)
    return save(figure, "throughput-by-batch")


def latency_under_load() -> Path:
    """Measured and simulated percentiles, from `python -m bench.scenarios server`."""
    found = results("scenarios-server-demo")
    figure, (axes,) = panels(1, height_in=3.4)
    names = [name for name in found["tables"]["latency, ms"][0] if name.startswith("p")]
    for row, colour in zip(found["tables"]["latency, ms"], COLOURS, strict=False):
        seconds = [row[name] / 1e3 for name in names]
        style = "o-" if row[""] == "measured" else ".--"
        axes.plot(names, seconds, style, color=colour, label=row[""])
    axes.set_ylim(bottom=0)
    axes.set_title(f"demo checkpoint at {found['load']:.0%} load: seconds from arrival to mask")
    axes.legend(fontsize=8)
    return save(figure, "latency-under-load")


def memory_by_size() -> Path:
    """A mask's memory above that of the scores, from `python -m bench.masks`."""
    rows = [row for row in results("masks")["rows"] if row["scores"] == "demo scene"]
    figure, (axes,) = panels(1, height_in=3.2)
    for (way, each), colour in zip(_by(rows, "way").items(), (OURS, OTHERS), strict=True):
        label = {"ours": "maskq", "reference": "transformers"}[way]
        megapixels = [row["megapixels"] for row in each]
        axes.plot(megapixels, [row["mb"] for row in each], "o-", color=colour, label=label)
    axes.set_yscale("log")
    axes.set_yticks([10, 100, 1000, 10_000], ["10", "100", "1,000", "10,000"])
    axes.set_xlabel("megapixels")
    axes.set_title("MB that one mask of 150 classes takes")
    axes.legend(fontsize=8)
    return save(figure, "memory-by-size")


def results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((report.RESULTS / f"{name}.json").read_text("utf-8"))
    return found


def panels(count: int, *, height_in: float) -> tuple[Any, Any]:
    """A figure and its axes, side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, count, figsize=(WIDTH_IN, height_in), squeeze=False)
    for one in axes[0]:
        one.grid(alpha=0.3)
        one.set_axisbelow(True)
    return figure, axes[0]


def save(figure: Any, name: str) -> Path:
    """docs/images/NAME.png."""
    path = IMAGES / f"{name}.png"
    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    return path


def _by(rows: list[dict[str, Any]], key: str) -> Mapping[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return found


if __name__ == "__main__":
    main()
