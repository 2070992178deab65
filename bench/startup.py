"""From process start to ready: seconds, processor seconds and memory, step by step.

`python -m bench.startup [--model demo|large|DIR] [--runs 5]`. Each run is a fresh process that does
what a worker does before it takes its first job, Redis left out: its imports, torch, the weights, the
self-test, the warm-up, the revision. The backends take turns, so that what else runs here slows both.
Printed are the medians over the runs; all files lie in the page cache. `large` has DPT-Large's sizes
and random weights. `python -m bench.peers --starts 3` measures whole starts, from the start of the
process to the first mask, of a worker and of its peers by turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.report import table, write

Figures = dict[str, dict[str, float]]  # by step: s, cpu_s, peak_mib up to its end


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="demo")
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--backends", nargs="+", default=["auto", "transformers"])
    options.add_argument("--started", type=float, help=argparse.SUPPRESS)  # for the fresh process
    chosen = options.parse_args()
    if chosen.started is not None:
        print(json.dumps(start(chosen.model, chosen.started)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = checkpoint(chosen.model, Path(folder))
        measure(model, backend=chosen.backends[0])  # fills the page cache and writes .pyc files
        runs: dict[str, list[Figures]] = {backend: [] for backend in chosen.backends}
        for _ in range(chosen.runs):
            for backend, figures in runs.items():
                figures.append(measure(model, backend=backend))
    rows = [row for backend, figures in runs.items() for row in medians(backend, figures)]
    print(table(rows))
    name = Path(chosen.model).name
    print(write(f"startup-{name}", {"model": name, "runs": chosen.runs, "rows": rows}))


def checkpoint(model: str, folder: Path) -> str:
    """What MASKQ_MODEL takes."""
    if model != "large":
        return model
    from bench.checkpoints import write_large  # imports transformers, which is what is measured

    return str(write_large(folder / "large"))


def measure(model: str, *, backend: str) -> Figures:
    """The steps of one fresh process."""
    command = [sys.executable, "-m", "bench.startup", "--model", model, "--started"]
    answer = subprocess.run(
        [*command, repr(time.monotonic())],
        env={**os.environ, "MASKQ_BACKEND": backend},
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: Figures = json.loads(answer.stdout)
    return figures


def start(model: str, started: float) -> Figures:
    """In the fresh process; started: the parent's time.monotonic() just before."""
    steps: Figures = {}
    last, last_cpu = started, 0.0

    def done(step: str) -> None:
        nonlocal last, last_cpu
        now, cpu = time.monotonic(), time.process_time()
        steps[step] = {"s": now - last, "cpu_s": cpu - last_cpu, "peak_mib": _peak_mib()}
        last, last_cpu = now, cpu

    done("Python")
    import maskq_worker.__main__
    import maskq_worker.broker.bootstep
    import maskq_worker.broker.tasks  # noqa: F401 (what Celery imports for a worker)

    done("a worker's imports")
    import torch  # noqa: F401

    done("torch")
    from maskq_worker.model import load_segmenter, run_self_test, warm_up
    from maskq_worker.settings import WorkerSettings

    segmenter = load_segmenter(WorkerSettings(model=model))
    done("weights")
    run_self_test(segmenter)
    done("self-test")
    warm_up(segmenter)
    done("warm-up")
    _ = segmenter.info.revision  # waits for the weights' SHA-256 where they are of a folder
    done("revision")
    return steps


def medians(backend: str, runs: list[Figures]) -> list[dict[str, Any]]:
    """A row for each step, and one for all of them together."""
    whole = [
        {
            "s": sum(step["s"] for step in run.values()),
            "cpu_s": sum(step["cpu_s"] for step in run.values()),
            "peak_mib": max(step["peak_mib"] for step in run.values()),
        }
        for run in runs
    ]
    by_step = {step: [run[step] for run in runs] for step in runs[0]} | {"ready": whole}
    return [
        {"backend": backend, "step": step}
        | {key: round(statistics.median(one[key] for one in each), 2) for key in each[0]}
        for step, each in by_step.items()
    ]


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


if __name__ == "__main__":
    main()
