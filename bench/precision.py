"""What exactness costs: exact, fast and certified masks of one checkpoint, by turns in one run.

`python -m bench.precision [--model demo|large|DIR] [--images 12] [--rounds 5] [--batches 1,2,4]
[--only exact,bfloat16,…]`. `large` is a DPT-Large of random weights: its speed is the real one's, its
agreement is the worst case.

Each way has a process of its own, which loads the model as a worker does; they take turns on the same
images. The figures of half precision and 8 bits are measured first, on other images, in a cache of this
run. Printed: images a second over float32's (the median of the rounds), processor time and peak memory,
and beside them agreement with float32, the share of uncertain pixels, and pixels that differ outside
them. `openvino-bf16` is for comparison: OpenVINO computes our network in bfloat16; workers do not.
`--batches` prints what a forward of several images costs for each image.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from demo_scenes.scenes import draw
from demo_scenes.seeds import held_out
from PIL import Image

from bench import report
from bench.checkpoints import write_large
from bench.scenarios import processes

WAYS: Final[Mapping[str, Mapping[str, str]]] = {
    "exact": {"MASKQ_PRECISION": "exact"},
    "bfloat16": {"MASKQ_PRECISION": "fast", "MASKQ_DTYPE": "bfloat16"},
    "openvino-bf16": {},
    "int8": {"MASKQ_PRECISION": "fast", "MASKQ_DTYPE": "int8"},
    "certified": {"MASKQ_PRECISION": "certified", "MASKQ_DTYPE": "bfloat16"},
}
SIZE: Final = (640, 480)  # px
MEASURED_ON, COMPARED_ON = 61, 62  # seeds


def main() -> None:
    chosen = _arguments()
    if chosen.child:
        Child(chosen.model, chosen.child).serve()
        return
    with tempfile.TemporaryDirectory() as folder:
        model = chosen.model
        if model == "large":
            model = str(write_large(Path(folder) / "large"))
        os.environ["XDG_CACHE_HOME"] = folder
        gates = dict(_gates(model, chosen))
        figures = _measured(model, chosen)
    rows = [_row(name, figures) for name in figures]
    print(report.table(rows))
    for name, batches in ((name, figures[name]["batch_cpu_s"]) for name in figures):
        if len(batches) > 1:
            each = ", ".join(f"{size}: {1e3 * s:.0f}" for size, s in batches.items())
            print(f"{name}, ms of processor time for each image, by images in a forward: {each}")
    name = f"precision-{Path(chosen.model).name}"
    document = {"options": vars(chosen), "gates": gates, "rows": rows, "figures": figures}
    print(f"written to {report.write(name, document, 'openvino', 'nncf')}")


def _gates(model: str, chosen: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Measure half precision and 8 bits on other images, as the two commands do."""
    from maskq_worker.model.checkpoint.folder import resolve
    from maskq_worker.model.openvino.load import quantize
    from maskq_worker.model.precision.calibrate import calibrate

    checkpoint = resolve(model, None)
    images = _images(MEASURED_ON, chosen.measured)
    if {"bfloat16", "certified"} & set(chosen.only):
        record = calibrate(checkpoint, images, dtype="bfloat16", threshold=0.0)
        print(f"{record.model} {record.figures}", flush=True)
        yield "bfloat16", asdict(record)
    if "int8" in chosen.only:
        eight = quantize(checkpoint, images, threshold=0.0)
        print(f"{eight.model} {eight.figures}", flush=True)
        yield "int8", asdict(eight)


def _measured(model: str, chosen: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The answers of all ways, by name."""
    figures: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        processes = {name: stack.enter_context(Process(model, name)) for name in chosen.only}
        for name, process in processes.items():
            figures[name] = {"s": [], "cpu_s": [], "batch_cpu_s": {}, "masks": {}}
            process.ask({"do": "images", "count": chosen.images})
        for number in range(chosen.rounds):
            for name, process in processes.items():  # by turns
                answer = process.ask({"do": "round", "keep": number == 0})
                figures[name]["s"].append(answer["s"])
                figures[name]["cpu_s"].append(answer["cpu_s"])
                if "masks" in answer:
                    figures[name]["masks"] = answer["masks"]
        for size in chosen.batches:
            for name, process in processes.items():
                answer = process.ask({"do": "batch", "size": size})
                figures[name]["batch_cpu_s"][size] = answer["cpu_s"]
        for name, process in processes.items():
            figures[name]["peak_mb"] = process.ask({"do": "memory"})["mb"]
            figures[name].update(process.ask({"do": "info"}))
    _compare(figures)
    return figures


def _compare(figures: dict[str, dict[str, Any]]) -> None:
    """Agreement with the exact masks, uncertain pixels, and what differs outside them."""
    masks = {name: np.load(each.pop("masks")) for name, each in figures.items()}
    exact = masks.get("exact")
    for name, found in masks.items():
        if exact is None:
            continue
        pairs = [
            (found[f"mask{i}"], exact[f"mask{i}"], found[f"uncertain{i}"]) for i in _range(found)
        ]
        total = sum(mask.size for mask, _, _ in pairs)
        differs = [mask != expected for mask, expected, _ in pairs]
        figures[name]["agreement"] = 1 - sum(int(one.sum()) for one in differs) / total
        if name == "openvino-bf16":
            continue
        doubtful = [uncertain for _, _, uncertain in pairs]
        figures[name]["uncertain"] = sum(int(one.sum()) for one in doubtful) / total
        outside = (one & ~other for one, other in zip(differs, doubtful, strict=True))
        figures[name]["outside"] = sum(int(one.sum()) for one in outside)
        if name == "certified":
            figures[name]["in float32"] = int(found["exact"].sum())


def _range(found: Any) -> range:
    return range(len(found["exact"]))


def _row(name: str, figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    mine = figures[name]
    base = figures.get("exact", mine)
    ratios = [theirs / ours for theirs, ours in zip(base["s"], mine["s"], strict=True)]
    cpu = [theirs / ours for theirs, ours in zip(base["cpu_s"], mine["cpu_s"], strict=True)]
    return {
        "way": name,
        "computed in": mine["dtype"],
        "rate ÷ exact": median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "by CPU time": median(cpu),
        "images/s": 1 / median(mine["s"]),
        "CPU-ms an image": 1e3 * median(mine["cpu_s"]),
        "peak MiB": mine["peak_mb"],
        "agreement %": 100 * mine["agreement"] if "agreement" in mine else None,
        "uncertain %": 100 * mine["uncertain"] if "uncertain" in mine else None,
        "differ outside": mine.get("outside"),
        "again in float32": mine.get("in float32"),
    }


class Process:
    """A child that computes one way. It answers one line of JSON for each line."""

    def __init__(self, model: str, name: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "bench.precision", "--model", model, "--child", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **WAYS[name], "MASKQ_MODEL": model, "MASKQ_DEVICE": "cpu"},
            text=True,
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()

    def ask(self, what: Mapping[str, Any]) -> dict[str, Any]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        print(json.dumps(what), file=self._child.stdin, flush=True)
        line = self._child.stdout.readline()
        if not line:
            raise SystemExit("a child of this run ended; its message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Child:
    """One way, in a process of its own."""

    def __init__(self, model: str, name: str) -> None:
        self._segmenter = _segmenter(model, name)
        self._items: list[Any] = []

    def serve(self) -> None:
        for line in sys.stdin:
            what = json.loads(line)
            answer = {
                "images": self._prepare, "round": self._round, "batch": self._batch,
                "memory": self._memory, "info": self._info,
            }[what["do"]](what)  # fmt: skip
            print(json.dumps(answer), flush=True)

    def _prepare(self, what: Mapping[str, Any]) -> dict[str, Any]:
        self._items = [
            self._segmenter.prepare(image) for image in _images(COMPARED_ON, what["count"])
        ]
        self._segmenter.run(self._items[:1])  # the first forward takes longer
        return {}

    def _round(self, what: Mapping[str, Any]) -> dict[str, Any]:
        """Seconds of one image, from the prepared pixels to the mask."""
        began, cpu = time.perf_counter(), time.process_time()
        outputs = [output for item in self._items for output in self._segmenter.run([item])]
        count = len(self._items)
        answer: dict[str, Any] = {
            "s": (time.perf_counter() - began) / count,
            "cpu_s": (time.process_time() - cpu) / count,
        }
        if what["keep"]:
            answer["masks"] = _saved(outputs)
        return answer

    def _batch(self, what: Mapping[str, Any]) -> dict[str, Any]:
        """Processor seconds of a forward for each of its images."""
        pixels = [item.views.each[0].pixels for item in self._items[: what["size"]]]
        times = []
        for _ in range(3):
            cpu = time.process_time()
            self._segmenter.backend.forward(pixels)
            times.append((time.process_time() - cpu) / len(pixels))
        return {"cpu_s": median(times)}

    def _memory(self, _what: Mapping[str, Any]) -> dict[str, Any]:
        # Not by getrusage, which counts what this process was before it became a program of its own.
        return {"mb": round(processes.peak_rss_mib([os.getpid()]))}

    def _info(self, _what: Mapping[str, Any]) -> dict[str, Any]:
        return {"dtype": self._segmenter.info.dtype, "backend": self._segmenter.info.backend}


def _saved(outputs: Sequence[Any]) -> str:
    arrays: dict[str, Any] = {"exact": np.array([one.info.is_exact for one in outputs])}
    for number, output in enumerate(outputs):
        uncertain = output.uncertain
        arrays[f"mask{number}"] = output.mask
        arrays[f"uncertain{number}"] = (
            np.zeros(output.mask.shape, np.bool_) if uncertain is None else uncertain
        )
    folder = tempfile.mkdtemp(dir=os.environ["XDG_CACHE_HOME"])
    path = Path(folder) / "masks.npz"
    np.savez(path, **arrays)
    return str(path)


def _segmenter(model: str, name: str) -> Any:
    from maskq_worker.model import load_segmenter
    from maskq_worker.settings import WorkerSettings

    if name != "openvino-bf16":
        return load_segmenter(WorkerSettings.load())
    import torch

    from maskq_worker.model import Segmenter
    from maskq_worker.model.checkpoint.folder import resolve
    from maskq_worker.model.families.dpt import DPT
    from maskq_worker.model.loader import describe
    from maskq_worker.model.openvino import runtime
    from maskq_worker.model.openvino.backend import OpenVINOBackend
    from maskq_worker.model.openvino.convert import converted
    from maskq_worker.model.preprocess.from_checkpoint import load_preprocessor

    checkpoint = resolve(model, None)
    preprocessor = load_preprocessor(checkpoint.directory)
    exactly = runtime.settings()
    low = {"INFERENCE_PRECISION_HINT": "bf16", "EXECUTION_MODE_HINT": "PERFORMANCE"}
    runtime.settings = lambda: {**exactly, **low}
    network: Any = DPT.network(checkpoint.directory, torch.device("cpu"))
    backend = OpenVINOBackend(converted(network), preprocessor, dtype=torch.bfloat16)
    info = describe(checkpoint, backend, preprocessor)
    return Segmenter(info, backend, preprocessor, max_batch_size=1, max_score_bytes=2**30)


def _images(seed: int, count: int) -> list[Image.Image]:
    return [draw(held_out(seed, number), size=SIZE).image for number in range(count)]


def _arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--model", default="demo", help="demo, large or a directory")
    options.add_argument("--images", type=int, default=12, help="of each round")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--measured", type=int, default=18, help="images for the gates")
    options.add_argument("--only", type=lambda names: names.split(","), default=list(WAYS))
    options.add_argument(
        "--batches", type=lambda sizes: [int(one) for one in sizes.split(",")], default=[1]
    )
    options.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    return options.parse_args()


if __name__ == "__main__":
    main()
