"""What it is worth that a worker on a CPU keeps the memory of its forwards (`sizes.cpu_share`).

`python -m bench.memory_kept`: the bare forward, in a thread of its own as a worker's, by turns in a
process with a worker's environment and in one without what that says to malloc. Printed, and written to
bench/results/memory-kept-MODEL.json: medians of time and page faults a forward, and of the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import report
from maskq_worker.sizes import cpu_share

WARM_UP = 3


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="demo")
    options.add_argument("--rounds", type=int, default=6)
    options.add_argument("--forwards", type=int, default=20)
    options.add_argument("--measure", action="store_true", help="what a child of it does")
    chosen = options.parse_args()
    if chosen.measure:
        with ThreadPoolExecutor(1) as thread:
            print(json.dumps(thread.submit(measured, chosen.model, chosen.forwards).result()))
        return
    worker = cpu_share(1)
    plain = {name: value for name, value in worker.items() if not name.startswith("MALLOC_")}
    rounds = [(forwards(worker), forwards(plain)) for _ in range(chosen.rounds)]
    figures = {
        "model": chosen.model,
        "rounds": chosen.rounds,
        "forwards": chosen.forwards,
        **{
            name: {
                what: round(statistics.median(pair[which][what] for pair in rounds), 1)
                for what in ("ms", "page_faults")
            }
            for which, name in enumerate(("kept", "given_back"))
        },
        "time_kept_to_given_back": [round(kept["ms"] / given["ms"], 3) for kept, given in rounds],
    }
    print(json.dumps(figures, indent=2))
    print(report.write(f"memory-kept-{Path(chosen.model).name}", figures))


def forwards(environment: Mapping[str, str]) -> dict[str, float]:
    """Of a process with this environment besides our own; our arguments are its, too."""
    ran = subprocess.run(
        [sys.executable, "-m", "bench.memory_kept", *sys.argv[1:], "--measure"],
        env=os.environ | environment, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def measured(model: str, count: int) -> dict[str, float]:
    """Median milliseconds, and mean page faults, of a forward."""
    from maskq_worker.model import load_segmenter
    from maskq_worker.model.segmenter import golden_image
    from maskq_worker.settings import WorkerSettings

    segmenter = load_segmenter(WorkerSettings(model=model, device="cpu"))
    pixels = [segmenter.prepare(golden_image()).views.each[0].pixels]
    for _ in range(WARM_UP):
        segmenter._forward(pixels)
    before, took = _page_faults(), list[float]()
    for _ in range(count):
        began = time.perf_counter()
        segmenter._forward(pixels)
        took.append(time.perf_counter() - began)
    return {
        "ms": 1e3 * statistics.median(took),
        "page_faults": (_page_faults() - before) / count,
    }


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if __name__ == "__main__":
    main()
