"""What a forward costs: transformers' network beside ours, on this machine's CPU.

`python -m bench.network [--model demo|large]`. `large` is DPT-Large's shape (344 M parameters) with
random weights, at 480x480; `demo` the demo checkpoint. Both networks have the same weights and take the
same image by turns, so that what else runs here slows both; printed are the medians, the median of the
ratios of pairs, the work, and how far the scores differ. `transformers` is the reference as it comes;
`without its auxiliary head` is the same, less the part that only a loss reads.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.checkpoints import large_network
from maskq_worker.model.network import Network

Forward = Callable[[], torch.Tensor]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", choices=["demo", "large"], default="demo")
    options.add_argument("--pairs", type=int, default=9)
    chosen = options.parse_args()
    source, side = (demo if chosen.model == "demo" else large)()
    pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    lean = copy.deepcopy(source)
    lean.auxiliary_head = None
    ours = Network(copy.deepcopy(source))
    ways: dict[str, Forward] = {
        "transformers": lambda: source(pixel_values=pixels).logits,
        "without its auxiliary head": lambda: lean(pixel_values=pixels).logits,
        "ours": partial(ours, pixels),
    }
    with torch.inference_mode():
        for way, forward in ways.items():
            print(f"{way:<27} {gflop(forward):7.1f} GFLOP")
        print(f"largest difference: {difference(ways):.1e} of the largest score")
        compare(by_turns(ways, chosen.pairs))


def compare(seconds: dict[str, list[float]]) -> None:
    ours = seconds["ours"]
    for way, each in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(each, ours, strict=True))
        print(
            f"{way:<27} {1e3 * statistics.median(each):7.0f} ms, best {1e3 * min(each):7.0f} ms, "
            f"{ratio:.2f} times ours"
        )


def by_turns(ways: dict[str, Forward], rounds: int) -> dict[str, list[float]]:
    """Seconds of every forward, by way, in order."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, forward in ways.items():
            began = time.perf_counter()
            forward()
            seconds[way].append(time.perf_counter() - began)
    return seconds


def gflop(forward: Forward) -> float:
    """2 for a multiplication and an addition; what torch counts: no norms, activations, attention."""
    with FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops() / 1e9


def difference(ways: dict[str, Forward]) -> float:
    expected = ways["transformers"]()
    return ((ways["ours"]() - expected).abs().max() / expected.abs().max()).item()


def demo() -> tuple[Any, int]:
    """The network, and the side of its input in px."""
    import maskq_standalone
    from maskq_worker.model.checkpoint.loading import load_network
    from maskq_worker.model.families.dpt import DPT

    directory = Path(maskq_standalone.__file__).parent / "demo" / "checkpoint"
    settings = json.loads((directory / "preprocessor_config.json").read_text())
    return load_network(directory, torch.float32, DPT), settings["size"]["height"]


def large() -> tuple[Any, int]:
    """As `demo`."""
    return large_network(), 480


if __name__ == "__main__":
    main()
