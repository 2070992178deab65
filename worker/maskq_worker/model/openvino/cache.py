"""Store 8-bit networks with their figures, and refuse to load one that does not fit."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from maskq_worker.model.checkpoint.files import (
    CONFIG,
    PREPROCESSOR,
    PROCESSOR,
    read_json,
    sha256_of,
    weights_root,
)
from maskq_worker.model.checkpoint.folder import Checkpoint
from maskq_worker.model.errors import ModelError
from maskq_worker.model.openvino import runtime
from maskq_worker.model.precision.measure import Measured
from maskq_worker.model.precision.store import argument

RECORD: Final = "int8.json"
MODEL: Final = "int8.xml"
WEIGHTS: Final = "int8.bin"


@dataclass(frozen=True, slots=True)
class Source:
    """What an 8-bit network is made from. Another source needs another network."""

    checkpoint: str  # commit of the hub, else `sha256:…` of the weights
    settings: str  # SHA-256 of config.json and the settings of the image processor
    openvino: str  # version

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Source:
        files = [checkpoint.directory / name for name in (CONFIG, PREPROCESSOR, PROCESSOR)]
        return cls(
            checkpoint=checkpoint.revision or f"sha256:{checkpoint.sha256}",
            settings=hashlib.sha256(
                b"\0".join(file.read_bytes() for file in files if file.is_file())
            ).hexdigest(),
            openvino=runtime.openvino().get_version(),
        )


@dataclass(frozen=True, slots=True)
class Record:
    """The figures of one 8-bit network, as they stand in its int8.json."""

    model: str  # its name, as served
    source: Source
    nncf: str  # version
    dot_products: bool  # whether the CPU it was checked on sums 8-bit products exactly
    calibration_images: int
    checked_images: int  # others
    agreement: float  # share of their pixels with float32's class, 0..1
    miou: float  # against float32's masks, 0..1
    threshold: float  # of agreement: below it the network is not served
    files: dict[str, str]  # name → SHA-256
    built_at: str  # ISO 8601, UTC
    # As of `Measured`. None: an older version of maskq built the network.
    worst_margin: float | None = None
    uncertain_below: float | None = None
    uncertain_share: float | None = None
    missed_pixels: int | None = None

    @property
    def figures(self) -> str:
        said = (
            f"agrees with float32 in {self.agreement:.3%} of the pixels of {self.checked_images} "
            f"images (mean IoU {self.miou:.4f}), and needs {self.threshold:.3%}"
        )
        if self.uncertain_below is None or self.uncertain_share is None:
            return said
        return (
            f"{said}; {self.uncertain_share:.2%} of the pixels are uncertain (margin below "
            f"{self.uncertain_below:.3g}), and {self.missed_pixels} others differ"
        )


def folder(source: Source) -> Path:
    """The folder of a source's network, in `~/.cache/maskq/openvino/`."""
    key = hashlib.sha256("\0".join(asdict(source).values()).encode()).hexdigest()[:32]
    return weights_root().with_name("openvino") / key


def command(checkpoint: Checkpoint) -> str:
    """The command that builds a checkpoint's network."""
    return f"`maskq weights quantize {argument(checkpoint)} --images FOLDER`"


def is_built(checkpoint: Checkpoint) -> bool:
    """Whether there is a network of this checkpoint. It may be refused by `load`."""
    try:
        return (folder(Source.of(checkpoint)) / RECORD).is_file()
    except ModelError:  # OpenVINO is not installed
        return False


def load(checkpoint: Checkpoint) -> tuple[Any, Record]:
    """Load OpenVINO's 8-bit model of a checkpoint, with its record.

    Raises:
        ModelError: if it is missing, damaged, of another checkpoint, or below its threshold; with what
            to do.
    """
    source = Source.of(checkpoint)
    directory = folder(source)
    build = command(checkpoint)
    if not (directory / RECORD).is_file():
        raise ModelError(
            f"there is no 8-bit network of {checkpoint.name} for OpenVINO {source.openvino} here: "
            f"run {build}, with images like those of your jobs, or set MASKQ_DTYPE=float32"
        )
    record = _read(directory / RECORD, build)
    if record.source != source:
        raise ModelError(
            f"{directory} holds the 8-bit network of another checkpoint: run {build} again"
        )
    if record.agreement < record.threshold:
        raise ModelError(
            f"the 8-bit network of {checkpoint.name} {record.figures}: run {build} with more images "
            "like those of your jobs, or set MASKQ_DTYPE=float32"
        )
    if record.dot_products and not runtime.has_dot_products():
        raise ModelError(
            f"the 8-bit network of {checkpoint.name} was checked on a CPU that sums 8-bit products "
            f"exactly (VNNI), which this one does not: run {build} here, or set MASKQ_DTYPE=float32"
        )
    for name, digest in record.files.items():
        if not (directory / name).is_file() or sha256_of(directory / name) != digest:
            raise ModelError(f"{directory / name} is missing or damaged: run {build} again")
    return runtime.openvino().Core().read_model(directory / MODEL), record


def store(
    checkpoint: Checkpoint,
    save: Callable[[Path], object],
    measured: Measured,
    *,
    threshold: float,
    calibration_images: int,
) -> Record:
    """Write the network and its record, in place of an earlier one of the same source.

    save: writes the network to the path of its .xml, and a .bin beside it.
    """
    source = Source.of(checkpoint)
    final = folder(source)
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".", dir=final.parent))
    try:
        save(staging / MODEL)
        record = Record(
            model=checkpoint.name,
            source=source,
            nncf=runtime.nncf().__version__,
            dot_products=runtime.has_dot_products(),
            calibration_images=calibration_images,
            checked_images=measured.images,
            agreement=measured.agreement,
            miou=measured.miou,
            threshold=threshold,
            files={name: sha256_of(staging / name) for name in (MODEL, WEIGHTS)},
            built_at=datetime.now(UTC).isoformat(timespec="seconds"),
            worst_margin=measured.worst_margin,
            uncertain_below=measured.uncertain_below,
            uncertain_share=measured.uncertain_share,
            missed_pixels=measured.missed_pixels,
        )
        text = json.dumps(asdict(record), indent=2) + "\n"
        (staging / RECORD).write_text(text, encoding="utf-8")
        staging.chmod(0o755)  # mkdtemp makes it private, and weights need not be
        _replace(staging, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return record


def _replace(staging: Path, final: Path) -> None:
    """A worker that has opened the old files keeps them."""
    shutil.rmtree(final, ignore_errors=True)
    staging.rename(final)


def _read(path: Path, build: str) -> Record:
    try:
        content: Any = read_json(path)
        known = {field.name for field in fields(Record)}
        needed = {field.name for field in fields(Record) if field.default is MISSING}
        if wrong := (needed - content.keys()) | (content.keys() - known):
            raise ModelError(f"{path} lacks or should not have {', '.join(sorted(wrong))}")
        return Record(**content | {"source": Source(**content["source"])})
    except (ModelError, TypeError) as error:
        raise ModelError(f"{path} is damaged ({error}): run {build} again") from error
