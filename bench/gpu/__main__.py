"""`python -m bench.gpu [--device cuda|cpu] [--dry-run] [--minutes 8.5] [--only PART,…]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

import bench.gpu
from bench import report
from bench.checkpoints import write_large, write_smallest
from bench.gpu import part

# In the order of their worth, and for how long each may be left out when time is short, seconds.
PARTS: Final = {
    "ceiling": 20,
    "correct": 50,
    "operations": 15,
    "forward": 60,
    "batcher": 45,
    "service": 120,
    "profile": 15,
    "choices": 20,
    "agreement": 30,
    "masks": 45,
    "naive": 80,
}
LATE_S: Final = 25.0  # past --minutes, for a part that has begun


@dataclass(frozen=True, slots=True)
class Paper:
    """Where the figures go: a file, rewritten after every part."""

    name: str
    write: bool

    def note(self, found: Mapping[str, Any]) -> Path | None:
        return report.write(self.name, found, "triton") if self.write else None


def main() -> None:
    chosen = arguments()
    device = torch.device(chosen.device, 0) if chosen.device == "cuda" else torch.device("cpu")
    if chosen.part:
        part.run(chosen.part, chosen.folder, device, dry=chosen.dry_run)
    else:
        measure(chosen, device)


def measure(chosen: argparse.Namespace, device: torch.device) -> None:
    card = about(device)
    if chosen.out:
        report.RESULTS = chosen.out
    paper = Paper(f"gpu-{card['short']}", not chosen.dry_run)
    began = time.monotonic()
    found: dict[str, Any] = {"how": bench.gpu.__doc__, "card": card}
    with tempfile.TemporaryDirectory(prefix="maskq-gpu-") as scratch:
        folder = Path(scratch)
        # Where it is measured: nothing is fetched.
        (write_smallest if chosen.dry_run else partial(kept, chosen.checkpoint))(
            folder / part.CHECKPOINT
        )
        for name, figures in measured(chosen, folder, device, began + 60 * chosen.minutes):
            found[name] = figures
            print(said(name, figures), flush=True)
            written = paper.note(found)
    print(f"\n{time.monotonic() - began:.0f} s; written to {written or 'nothing: a dry run'}")
    failed = [name for name in chosen.only if "failed" in found.get(name, {})]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def kept(checkpoint: Path | None, place: Path) -> None:
    """DPT-Large's checkpoint at a place: written there, or once to a folder that later runs take."""
    if checkpoint is None:
        write_large(place)
        return
    if not (checkpoint / "complete").exists():
        write_large(checkpoint)
        (checkpoint / "complete").touch()
    place.symlink_to(checkpoint.absolute())


def measured(
    chosen: argparse.Namespace, folder: Path, device: torch.device, end: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each part as it is done; what fails says why, and the next one goes on."""
    for name in chosen.only:
        left = end - time.monotonic()
        if left < PARTS[name] and not chosen.dry_run:
            yield name, {"left_out": f"{left:.0f} s were left, it takes about {PARTS[name]}"}
            continue
        began = time.monotonic()
        most_s = 30.0 + 2 * PARTS[name]  # one that hangs leaves time for others
        if chosen.dry_run:
            most_s = 60.0 + 4 * PARTS[name]  # on any machine
        if not chosen.dry_run:
            most_s = min(most_s, left + LATE_S)
        figures = part.asked(name, folder, device, dry=chosen.dry_run, most_s=most_s)
        yield name, {**figures, "took_s": round(time.monotonic() - began, 1)}


def about(device: torch.device) -> dict[str, Any]:
    """The driver is asked, no memory of the card is taken."""
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
    if device.type != "cuda":
        return {"short": "cpu", "name": platform.machine(), **versions}
    card = torch.cuda.get_device_properties(device)
    return {
        "short": re.sub(r"[^a-z0-9]+", "-", card.name.lower().removeprefix("nvidia ")).strip("-"),
        "name": card.name,
        "capability": f"{card.major}.{card.minor}",
        "memory_mib": card.total_memory // 2**20,
        "multiprocessors": card.multi_processor_count,
        "cores_of_the_machine": os.cpu_count(),
        **versions,
    }


def said(name: str, figures: Mapping[str, Any]) -> str:
    """A part as text: its lists of rows as tables."""
    lines = [f"\n=== {name}"]
    for key, value in figures.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines += [key, textwrap.indent(report.table(_even(value)), "  ")]
        elif key == "traceback":
            lines += [textwrap.indent("\n".join(value[-6:]), "  ")]
        else:
            lines.append(f"{key}: {json.dumps(value, default=str)}")
    return "\n".join(lines)


def _even(rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the same keys: one that failed has others."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key) for key in keys} for row in rows]


def arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=bench.gpu.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options.add_argument("--dry-run", action="store_true", help="a tiny network, nothing written")
    options.add_argument(
        "--minutes", type=float, default=8.5, help="what would end later is left out"
    )
    options.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS))
    options.add_argument("--out", type=Path, help="a folder, instead of bench/results")
    options.add_argument(
        "--checkpoint", type=Path, help="a folder that keeps DPT-Large's 1.4 GB for the next run"
    )
    # How it starts itself for one part.
    options.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if unknown := set(chosen.only) - set(PARTS):
        options.error(f"--only {','.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    if chosen.device == "cuda" and not torch.cuda.is_available():
        options.error("torch finds no GPU here; --dry-run --device cpu tries what needs none")
    return chosen


if __name__ == "__main__":
    main()
