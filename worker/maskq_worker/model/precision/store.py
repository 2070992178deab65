"""Keep the figures of networks in half precision, and refuse a network whose figures do not fit."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from maskq_worker.model.checkpoint.files import (
    CONFIG,
    PREPROCESSOR,
    PROCESSOR,
    read_json,
    weights_root,
)
from maskq_worker.model.checkpoint.folder import DEMO, Checkpoint
from maskq_worker.model.errors import ModelError
from maskq_worker.model.precision.measure import Measured
from maskq_worker.model.precision.processor import half_precision_units


@dataclass(frozen=True, slots=True)
class Source:
    """What figures hold for. Another source needs another measurement."""

    checkpoint: str  # commit of the hub, else `sha256:…` of the weights
    settings: str  # SHA-256 of config.json and the settings of the image processor
    dtype: str  # bfloat16 | float16
    processor: str  # a GPU's name; of a CPU the instructions that it computes the type with
    torch_version: str  # as 2.13

    @classmethod
    def of(cls, checkpoint: Checkpoint, dtype: str, device: torch.device) -> Source:
        files = [checkpoint.directory / name for name in (CONFIG, PREPROCESSOR, PROCESSOR)]
        if device.type == "cuda":
            processor = torch.cuda.get_device_name(device)
        else:
            processor = f"cpu {half_precision_units(dtype) or 'without units for it'}"
        return cls(
            checkpoint=checkpoint.revision or f"sha256:{checkpoint.sha256}",
            settings=hashlib.sha256(
                b"\0".join(file.read_bytes() for file in files if file.is_file())
            ).hexdigest(),
            dtype=dtype,
            processor=processor,
            torch_version=".".join(torch.__version__.split(".")[:2]),
        )


@dataclass(frozen=True, slots=True)
class Record:
    """The figures of one network in half precision, as they are stored."""

    model: str  # its name, as served
    source: Source
    backend: str  # what computed the scores: cpu | cuda | transformers
    measured: Measured
    threshold: float  # of agreement: below it the network is not served
    measured_at: str  # ISO 8601, UTC

    @property
    def passes(self) -> bool:
        """Whether a worker may serve the network."""
        return self.measured.agreement >= self.threshold

    @property
    def figures(self) -> str:
        found = self.measured
        return (
            f"in {self.source.dtype} agrees with float32 in {found.agreement:.3%} of the pixels of "
            f"{found.images} images (mean IoU {found.miou:.4f}), and needs {self.threshold:.3%}; "
            f"{found.uncertain_share:.2%} of the pixels are uncertain (margin below "
            f"{found.uncertain_below:.3g}), and {found.missed_pixels} others differ"
        )


def path_of(source: Source) -> Path:
    """The file of a source's figures, in `~/.cache/maskq/calibrated/`."""
    key = hashlib.sha256("\0".join(asdict(source).values()).encode()).hexdigest()[:32]
    return weights_root().with_name("calibrated") / f"{key}.json"


def load(checkpoint: Checkpoint, dtype: str, device: torch.device, *, setting: str) -> Record:
    """The figures of a checkpoint's network.

    Args:
        dtype: bfloat16 | float16.
        setting: what asked for it, for the message: `MASKQ_DTYPE is bfloat16`.

    Raises:
        ModelError: if they are missing, damaged or below their threshold; with what to do.
    """
    record = find(checkpoint, dtype, device)
    run = command(checkpoint, dtype)
    if record is None:
        where = Source.of(checkpoint, dtype, device)
        raise ModelError(
            f"{setting}, but {checkpoint.name} was not measured in {dtype} on this processor "
            f"({where.processor}, torch {where.torch_version}): run {run}, with images like those of "
            "your jobs, or set MASKQ_DTYPE=float32"
        )
    if not record.passes:
        raise ModelError(
            f"{checkpoint.name} {record.figures}: run {run} with more images like those of your jobs, "
            "or set MASKQ_DTYPE=float32"
        )
    return record


def find(checkpoint: Checkpoint, dtype: str, device: torch.device) -> Record | None:
    """As `load`; None if there are none. It may be below its threshold.

    Raises ModelError if they are damaged.
    """
    source = Source.of(checkpoint, dtype, device)
    path = path_of(source)
    if not path.is_file():
        return None
    try:
        record = _parsed(read_json(path))
    except (ModelError, TypeError, KeyError) as error:
        raise ModelError(
            f"{path} is damaged ({error}): run {command(checkpoint, dtype)} again"
        ) from error
    return record if record.source == source else None


def store(
    checkpoint: Checkpoint,
    dtype: str,
    device: torch.device,
    measured: Measured,
    *,
    backend: str,
    threshold: float,
) -> Record:
    """Write the figures, in place of earlier ones of the same source."""
    record = Record(
        model=checkpoint.name,
        source=Source.of(checkpoint, dtype, device),
        backend=backend,
        measured=measured,
        threshold=threshold,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    path = path_of(record.source)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(f".{os.getpid()}")
    staging.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    staging.replace(path)
    return record


def command(checkpoint: Checkpoint, dtype: str) -> str:
    """The command that measures a checkpoint."""
    return f"`maskq weights calibrate {argument(checkpoint)} --dtype {dtype} --images FOLDER`"


def argument(checkpoint: Checkpoint) -> str:
    """The checkpoint as an argument of `maskq weights`."""
    named = checkpoint.revision is not None or checkpoint.name == DEMO
    return checkpoint.name if named else os.fspath(checkpoint.directory)


def _parsed(content: Mapping[str, Any]) -> Record:
    known = {field.name for field in fields(Record)}
    if wrong := known ^ content.keys():
        raise ModelError(f"it lacks or should not have {', '.join(sorted(wrong))}")
    nested = {"source": Source(**content["source"]), "measured": Measured(**content["measured"])}
    return Record(**{**content, **nested})
