"""One part in a process of its own: a fault of the card lasts as long as the process that met it."""

from __future__ import annotations

import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from bench.gpu.subject import Subject
from maskq_standalone.children.child import Child

CHECKPOINT = "dpt"  # in the folder, written before the first part
_KNOWN = "known.json"  # in the folder: what parts found that later ones need


def asked(
    name: str, folder: Path, device: torch.device, *, dry: bool, most_s: float
) -> dict[str, Any]:
    """Its figures, or why there are none; in this process nothing touches the card."""
    options = ["--part", name, "--folder", str(folder), "--device", device.type]
    command = [sys.executable, "-m", "bench.gpu", *options, *(["--dry-run"] if dry else [])]
    child = Child(name, command, log=folder / f"{name}.log")
    figures = folder / f"{name}.json"
    rows = _rows_file(folder, name)
    for file in (figures, rows):  # --only may name a part twice
        file.unlink(missing_ok=True)
    child.start()
    in_time = _ended(child, most_s)
    if figures.exists():  # whatever became of the process after it
        return dict(json.loads(figures.read_text(encoding="utf-8")))
    how = child.ending().partition(" (log: ")[0]  # the log goes with the folder
    so_far = json.loads(rows.read_text(encoding="utf-8")) if rows.exists() else {}
    return {
        **so_far,
        "failed": f"its process {how}" if in_time else f"it was not done after {most_s:.0f} s",
        "traceback": child.log_tail().splitlines(),
    }


def run(name: str, folder: Path, device: torch.device, *, dry: bool) -> None:
    """In that process, which ends here; the figures go to a file."""
    faulthandler.enable()
    faulthandler.register(signal.SIGTERM, chain=True)  # when its time is over: where it hangs
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    for loud in ("botocore", "boto3", "urllib3", "httpx", "celery"):
        logging.getLogger(loud).setLevel(logging.WARNING)
    if dry:
        torch.set_num_threads(1)
    known, batches = folder / _KNOWN, (1, 2, 4) if dry else Subject.batches
    found = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    rows = _rows_file(folder, name)
    subject = Subject(folder / CHECKPOINT, device, dry, batches, found, rows)
    figures = _tried(name, subject)
    known.write_text(json.dumps(subject.found), encoding="utf-8")
    whole = folder / f"{name}.new"
    whole.write_text(json.dumps(figures, default=str), encoding="utf-8")
    whole.replace(folder / f"{name}.json")
    sys.stdout.flush()
    os._exit(0)  # after a fault, what an interpreter does at its end may hang or abort


def _rows_file(folder: Path, name: str) -> Path:
    """What a part keeps of its rows before it has ended."""
    return folder / f"{name}.rows.json"


def _tried(name: str, subject: Subject) -> dict[str, Any]:
    try:
        found: dict[str, Any] = importlib.import_module(f"bench.gpu.{name}").run(subject)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is wanted in the figures
        return {
            "failed": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc().splitlines(),
        }
    return found


def _ended(child: Child, most_s: float) -> bool:
    """Whether it ended by itself. What it says is said here too, as it comes."""
    end = time.monotonic() + most_s
    with child.log.open(encoding="utf-8", errors="replace") as log:
        try:
            while child.alive and time.monotonic() < end:
                sys.stderr.write(log.read())
                time.sleep(0.1)
            return not child.alive
        finally:
            child.stop()
            sys.stderr.write(log.read())
