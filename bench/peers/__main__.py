"""`python -m bench.peers [--model large|demo|smallest|DIR] [--megapixels 0.3] [--only NAME,…]`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch

from bench import peers, report
from bench.checkpoints import write_large, write_smallest
from bench.peers import chart, figures, scenes
from bench.peers.celery_peer import CeleryPeer, RayServe
from bench.peers.contender import Contender
from bench.peers.forwards import Forwards
from bench.peers.http_peers import BentoML, BentoMLTasks, LitServe
from bench.peers.ours import (
    Maskq,
    Maskq8,
    MaskqCertified,
    MaskqHalf,
    calibrate,
    measure_half,
)
from bench.peers.plain import Model
from bench.peers.rounds import Rounds
from maskq_standalone.stack import Stack
from maskq_worker.model.checkpoint.folder import resolve

KINDS: Final[dict[str, type[Contender]]] = {
    "maskq": Maskq,
    "maskq-int8": Maskq8,
    "maskq-bf16": MaskqHalf,
    "maskq-certified": MaskqCertified,
    "celery": CeleryPeer,
    "ray": RayServe,
    "litserve": LitServe,
    "bentoml": BentoML,
    "bentoml-tasks": BentoMLTasks,
}
BATCHING: Final = ("litserve", "bentoml")
WRITERS: Final = {"large": write_large, "smallest": write_smallest}
DEFAULT: Final = ("maskq", "celery", "celery:2", "ray", "litserve", "bentoml", "bentoml-tasks")
BATCH: Final = 4
RAW: Final = argparse.RawDescriptionHelpFormatter
# Above, transformers' post-processing takes gigabytes: one server at a time, and one process of it.
TOGETHER_MEGAPIXELS: Final = 2.0


def main() -> None:
    chosen = arguments()
    # Through every `finally`, so that nothing stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with tempfile.TemporaryDirectory() as folder:
        found = measured(chosen, str(directory_of(chosen.model, Path(folder))))
    print(report.table(found["starts"] if chosen.starts else figures.rows(found)))
    print(f"written to {report.write(chosen.name, found, 'litserve', 'bentoml', 'ray')}")
    if not chosen.starts:
        print(forwards_line(found))
        print(f"drawn in {chart.draw(chosen.name, found['contenders'])}")


def measured(chosen: argparse.Namespace, directory: str) -> dict[str, Any]:
    """All rounds, as they stand in the result's file."""
    lower: dict[str, Any] = {}
    if "maskq-int8" in chosen.only:
        lower["int8"] = asdict(calibrate(directory))
    if {"maskq-bf16", "maskq-certified"} & set(chosen.only):
        lower["bfloat16"] = asdict(measure_half(directory))
    bodies = scenes.jpegs(chosen.images, chosen.megapixels)
    reference = Model(directory)
    masks = scenes.references(reference, bodies)
    forwards = Forwards(directory, reference, bodies[0])
    with Stack(workers=0, model=directory, log_level="WARNING") as stack:
        rounds = Rounds(
            [
                contender(name, stack, directory, chosen.batch, database)
                for database, name in enumerate(chosen.only, start=1)
            ],
            forwards,
            stack.s3.client(),
            bodies=bodies,
            masks=masks,
            images=chosen.images,
            together=chosen.megapixels <= TOGETHER_MEGAPIXELS,
        )
        lines = rounds.starts(chosen.starts) if chosen.starts else rounds.measure(chosen.rounds)
        for line in lines:
            print(line, flush=True)
    found = {
        "how": peers.__doc__,
        "options": {**vars(chosen), "model": Path(chosen.model).name},
        "torch_threads": torch.get_num_threads(),
        **lower,
    }
    if chosen.starts:
        return {**found, "starts": figures.start_rows(rounds.seen)}
    return {**found, **figures.summary(rounds.seen, forwards.seconds)}


def contender(name: str, stack: Stack, directory: str, batch: int, database: int) -> Contender:
    """name: of KINDS, and after a colon the number of processes; database: of Redis, its own."""
    kind, _, processes = name.partition(":")
    count = int(processes or 1)
    if kind not in KINDS:
        raise SystemExit(f"{name!r} is no contender; there are {', '.join(KINDS)}")
    at_once = batch if kind in BATCHING else 1
    return KINDS[kind](
        name, stack, model=directory, processes=count, batch=at_once, database=database
    )


def directory_of(model: str, folder: Path) -> Path:
    """Of `large` and `smallest` (written there now), `demo`, or a directory or hub id."""
    if model in WRITERS:
        return WRITERS[model](folder / model)
    return resolve(model).directory


def forwards_line(found: Mapping[str, Any]) -> str:
    each = ", ".join(f"{way} {median(times):.4g} s" for way, times in found["forward_s"].items())
    return f"a bare forward, batch 1: {each}"


def arguments() -> argparse.Namespace:
    """Where left open, few images where a forward takes seconds: all is over in ten minutes."""
    options = argparse.ArgumentParser(description=peers.__doc__, formatter_class=RAW)
    options.add_argument("--model", default="large", help="large, demo, smallest or a directory")
    options.add_argument("--megapixels", type=float, default=0.3)
    options.add_argument("--images", type=int, help="of a load")
    options.add_argument("--rounds", type=int)
    options.add_argument("--starts", type=int, default=0, help="of each contender, and no load")
    options.add_argument(
        "--batch", type=int, default=BATCH, help="of LitServe and BentoML, at most"
    )
    options.add_argument("--only", type=lambda names: names.split(","), help="contenders")
    options.add_argument("--name", help="of the files written; default: peers-MODEL-SIZE")
    chosen = options.parse_args()
    what = "starts" if chosen.starts else f"{chosen.megapixels:g}mp"
    chosen.name = chosen.name or f"peers-{Path(chosen.model).name}-{what}"
    large = chosen.megapixels > TOGETHER_MEGAPIXELS
    slow = chosen.model not in ("demo", "smallest")
    chosen.images = chosen.images or (2 if large else 4 if slow else 32)
    chosen.rounds = chosen.rounds or (2 if large or slow else 5)
    chosen.only = chosen.only or [name for name in DEFAULT if not (large and ":" in name)]
    return chosen


if __name__ == "__main__":
    main()
