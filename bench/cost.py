"""What a million images cost: `python -m bench.cost [--cpu-price P] [--gpu-price P]`.

From the rates in bench/results, which the named commands wrote. The prices are of an hour of the
machine that was measured, in any currency; without one the hours are printed alone. An end-to-end rate
includes the store and the queue; the GPU's is so far that of its forward alone.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

from bench import report

MILLION = 1e6
HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Measured:
    what: str
    images_a_second: float
    processor: str
    cores: int
    command: str
    gpu: bool = False

    def row(self, cpu_price: float | None, gpu_price: float | None) -> dict[str, Any]:
        hours = MILLION / self.images_a_second / HOUR_S
        price = gpu_price if self.gpu else cpu_price
        return {
            "what": self.what,
            "images/s": self.images_a_second,
            "machine": f"{self.cores} cores {self.processor}" if not self.gpu else self.processor,
            "hours a million": hours,
            "core-hours": None if self.gpu else hours * self.cores,
            "cost a million": None if price is None else hours * price,
            "command": self.command,
        }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cpu-price", type=float, help="of an hour of the CPU machine")
    options.add_argument("--gpu-price", type=float, help="of an hour of the GPU machine")
    chosen = options.parse_args()
    rows = [one.row(chosen.cpu_price, chosen.gpu_price) for one in measured()]
    print(report.table(rows))


def measured() -> list[Measured]:
    return [
        offline("large", "DPT-Large, float32, end to end"),
        offline("demo", "demo checkpoint, float32, end to end"),
        h200(),
    ]


def offline(model: str, what: str) -> Measured:
    found = _results(f"scenarios-offline-{model}")
    machine = found["machine"]
    command = f"python -m bench.scenarios offline --model {model}"
    return Measured(what, found["jobs_a_second"], machine["processor"], machine["cores"], command)


def h200() -> Measured:
    """Of all ways and batches the fastest one."""
    found = _results("gpu-h200-forward")
    best = max(found["forward"]["rows"], key=lambda row: row["images_s"])
    what = f"DPT-Large, {best['way']}, batch {best['batch']}"
    machine = found["machine"]
    return Measured(
        what,
        best["images_s"],
        found["card"]["name"],
        machine["cores"],
        "python -m bench.gpu --only forward",
        gpu=True,
    )


def _results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((report.RESULTS / f"{name}.json").read_text("utf-8"))
    return found


if __name__ == "__main__":
    main()
