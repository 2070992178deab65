"""What each mode is worth: mean IoU and time by mode, on drawn scenes that the demo model never saw.

`python -m bench.modes [--scenes 12]`. The scenes have three shapes: the one it was trained on, a wide
one and a large one, for which windows of its own resolution are finer than it was trained for.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from demo_scenes.scenes import Scene, draw

from bench.report import table, write
from maskq.contract.options import Mode
from maskq_standalone.demo.score import mean_iou
from maskq_worker.model import Segmenter, load_segmenter
from maskq_worker.settings import WorkerSettings

SIZES = ((640, 480), (960, 400), (1280, 960))  # px, width and height
FIRST_SEED = 9_000_000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--scenes", type=int, default=12, help="of each shape")
    chosen = options.parse_args()
    segmenter = load_segmenter(WorkerSettings(model="demo", device="cpu"))
    rows = []
    for size in SIZES:
        scenes = [draw(FIRST_SEED + n, size=size) for n in range(chosen.scenes)]
        for mode in Mode:
            iou, seconds = measured(segmenter, scenes, mode)
            shape = f"{size[0]}x{size[1]}"
            rows.append({"image": shape, "mode": mode.value, "mean IoU": iou, "s": seconds})
    print(table(rows))
    write("modes", {"scenes": chosen.scenes, "rows": rows})


def measured(segmenter: Segmenter, scenes: list[Scene], mode: Mode) -> tuple[float, float]:
    """Mean IoU over all scenes, and the median seconds of one image."""
    pairs, seconds = [], []
    for scene in scenes:
        began = time.perf_counter()
        [output] = segmenter.run([segmenter.prepare(scene.image, mode=mode)])
        seconds.append(time.perf_counter() - began)
        assert not isinstance(output, Exception)
        pairs.append((np.asarray(scene.mask), output.mask))
    return mean_iou(pairs), statistics.median(seconds)


if __name__ == "__main__":
    main()
