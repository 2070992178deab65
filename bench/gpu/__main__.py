"""`python -m bench.gpu [--device cuda|cpu] [--dry-run] [--minutes 8.5] [--only PART,…]`."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import platform
import re
import sys
import tempfile
import textwrap
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

import bench.gpu
from bench import report
from bench.checkpoints import write_large, write_smallest
from bench.gpu.subject import Subject
from bench.gpu.timing import release

# By importance, and for how long each may be left out when time is short, seconds.
PARTS: Final = {
    "ceiling": 20,
    "correct": 45,
    "forward": 60,
    "masks": 45,
    "agreement": 30,
    "service": 120,
    "naive": 60,
    "batcher": 25,
    "profile": 15,
    "choices": 20,
}


@dataclass(frozen=True, slots=True)
class Paper:
    """Where the figures go: a file, rewritten after every part."""

    name: str
    write: bool

    def note(self, found: Mapping[str, Any]) -> Path | None:
        return report.write(self.name, found, "triton") if self.write else None


def main() -> None:
    chosen = arguments()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    for loud in ("botocore", "boto3", "urllib3", "httpx", "celery"):
        logging.getLogger(loud).setLevel(logging.WARNING)
    device = torch.device(chosen.device, 0) if chosen.device == "cuda" else torch.device("cpu")
    card = about(device)
    if chosen.out:
        report.RESULTS = chosen.out
    paper = Paper(f"gpu-{card['short']}", not chosen.dry_run)
    began = time.monotonic()
    found: dict[str, Any] = {"how": bench.gpu.__doc__, "card": card}
    with tempfile.TemporaryDirectory(prefix="maskq-gpu-") as folder:
        subject = made(Path(folder), device, dry=chosen.dry_run)
        for name, part in measured(subject, chosen.only, began + 60 * chosen.minutes):
            found[name] = part
            print(said(name, part), flush=True)
            written = paper.note(found)
    print(f"\n{time.monotonic() - began:.0f} s; written to {written or 'nothing: a dry run'}")
    failed = [name for name in chosen.only if "failed" in found.get(name, {})]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def made(folder: Path, device: torch.device, *, dry: bool) -> Subject:
    """The checkpoint is written where it is measured: nothing is fetched."""
    write = write_smallest if dry else write_large
    if dry:
        torch.set_num_threads(1)
    return Subject(write(folder / "dpt"), device, dry, (1, 2, 4) if dry else Subject.batches)


def measured(
    subject: Subject, parts: list[str], end: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each part as it is done; what fails says why, and the next one goes on."""
    for name in parts:
        left = end - time.monotonic()
        if left < PARTS[name] and not subject.dry:
            yield name, {"left_out": f"{left:.0f} s were left, it takes about {PARTS[name]}"}
            continue
        began = time.monotonic()
        try:
            found = importlib.import_module(f"bench.gpu.{name}").run(subject)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other parts are wanted
            found = {
                "failed": f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc().splitlines(),
            }
        release_quietly(subject.device)
        yield name, {**found, "took_s": round(time.monotonic() - began, 1)}


def release_quietly(device: torch.device) -> None:
    """After a fault of the card this fails too."""
    try:
        release(device)
    except RuntimeError as error:
        print(f"the card does not answer any more: {error}", file=sys.stderr)


def about(device: torch.device) -> dict[str, Any]:
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


def said(name: str, part: Mapping[str, Any]) -> str:
    """A part as text: its lists of rows as tables."""
    lines = [f"\n=== {name}"]
    for key, value in part.items():
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
    chosen = options.parse_args()
    if unknown := set(chosen.only) - set(PARTS):
        options.error(f"--only {','.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    if chosen.device == "cuda" and not torch.cuda.is_available():
        options.error("torch finds no GPU here; --dry-run --device cpu tries what needs none")
    return chosen


if __name__ == "__main__":
    main()
