"""What an image of each shape takes: seconds and peak memory, by mode and output.

`python -m bench.shapes [--side 480] [--labels 150] [--pixels 65500] [--json]`. The network is tiny, of
random weights, so that every place of its scores is a border between classes: the hardest case. Memory
is how far the process grew above what it held before, by the kernel's own count (VmHWM). Of all shapes
but those whose names say more, the number of pixels is the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image

from bench.checkpoints import write_smallest
from bench.report import table, write
from maskq.contract import Output
from maskq.contract.options import Mode
from maskq_worker.model import Segmenter, load_segmenter
from maskq_worker.outputs import encode
from maskq_worker.process.malloc import trim_malloc
from maskq_worker.settings import WorkerSettings

# Those of `encode`, each alone: one pass over all of them would hide which one costs.
_OUTPUTS: Final = tuple(frozenset({output}) for output in Output)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one image."""

    width: int  # px
    height: int  # px
    mode: str
    output: str
    seconds: float
    mib: float  # at most above what the process held before


def shapes(pixels: int) -> Sequence[tuple[int, int]]:
    """(width, height) px: a square, and strips in both directions."""
    side = round(pixels**0.5)
    strips = [(pixels // narrow, narrow) for narrow in (1, 8, 120)]
    return [(side, side), *strips, *((high, wide) for wide, high in strips)]


def costs(
    side: int, labels: int, sizes: Sequence[tuple[int, int]], max_score_bytes: int
) -> Iterator[Cost]:
    with tempfile.TemporaryDirectory() as folder:
        model = write_smallest(Path(folder) / "model", labels=labels, side=side)
        settings = WorkerSettings(model=str(model), device="cpu", max_score_bytes=max_score_bytes)
        segmenter = load_segmenter(settings)
        _spread(segmenter)
        for size in sizes:
            for mode in Mode:
                for outputs in _OUTPUTS if mode is Mode.WHOLE else (frozenset({Output.MASK}),):
                    yield _cost(segmenter, size, mode, outputs)


def _cost(
    segmenter: Segmenter, size: tuple[int, int], mode: Mode, outputs: frozenset[Output]
) -> Cost:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    trim_malloc()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew from here on
    before, began = _kib("VmRSS"), time.perf_counter()
    [output] = segmenter.run([segmenter.prepare(image, outputs=outputs, mode=mode)])
    if isinstance(output, Exception):
        raise output
    encode(outputs, image=image, output=output, labels=segmenter.info.labels)
    seconds, peak = time.perf_counter() - began, _kib("VmHWM")
    [name] = outputs
    return Cost(*size, mode.value, name.value, seconds, (peak - before) / 1024)


def _spread(segmenter: Segmenter) -> None:
    """Weights as small as a fresh network's give one class everywhere: these give many."""
    with torch.no_grad():
        for weight in segmenter.backend.network.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 2.0 * weight[0].numel() ** -0.5)


def _kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--side", type=int, default=480, help="px of the network's square")
    options.add_argument("--labels", type=int, default=150)
    options.add_argument("--pixels", type=int, default=65_500)
    options.add_argument("--max-score-bytes", type=int, default=2**30, help="as the setting")
    options.add_argument("--large", action="store_true", help="also 30000x120 and 120x30000 px")
    options.add_argument("--json", action="store_true", help="a line for each, and no file")
    chosen = options.parse_args()
    sizes = [*shapes(chosen.pixels), *([(30_000, 120), (120, 30_000)] if chosen.large else ())]
    rows = []
    for cost in costs(chosen.side, chosen.labels, sizes, chosen.max_score_bytes):
        rows.append(asdict(cost))
        if chosen.json:
            print(json.dumps(rows[-1]), flush=True)
    if not chosen.json:
        print(table(rows))
        write("shapes", {"side": chosen.side, "labels": chosen.labels, "rows": rows})


if __name__ == "__main__":
    main()
