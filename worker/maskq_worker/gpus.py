"""Which GPUs there are, and which of them a worker process gets: exactly one each, by environment."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from maskq.errors import InvalidRequest

_LINE = re.compile(r"\s*(?:GPU (?P<index>\d+):|MIG ).*\(UUID: (?P<uuid>[A-Za-z0-9/-]+)\)")


@dataclass(frozen=True, slots=True)
class Gpu:
    uuid: str  # GPU-… or MIG-…: what CUDA_VISIBLE_DEVICES takes, stable across reboots
    index: str | None  # of a whole GPU; None for a MIG slice


def inventory() -> list[Gpu]:
    """The GPUs and MIG slices of this machine, as `nvidia-smi -L` lists them; []: none."""
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(
        ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False
    )
    return parse(listed.stdout) if listed.returncode == 0 else []


def parse(listing: str) -> list[Gpu]:
    """Read `nvidia-smi -L`."""
    found = (_LINE.match(line) for line in listing.splitlines())
    return [Gpu(match["uuid"], match["index"]) for match in found if match]


def choose(wanted: str | None, present: Sequence[Gpu]) -> list[Gpu]:
    """`all`, or indices and uuids joined by commas; None: all there are, which may be none (CPU).

    Raises InvalidRequest for a GPU that was asked for and is absent: never a silent CPU.
    """
    slices = [gpu for gpu in present if gpu.index is None]
    whole = [gpu for gpu in present if gpu.index is not None]
    if wanted is None:
        return slices or whole
    if wanted == "all":
        if not present:
            raise InvalidRequest("--gpus all: this machine shows no GPU (nvidia-smi -L lists none)")
        return slices or whole
    return [_find(name.strip(), present) for name in wanted.split(",") if name.strip()]


def _find(name: str, present: Sequence[Gpu]) -> Gpu:
    for gpu in present:
        if name in (gpu.uuid, gpu.index):
            return gpu
    seen = ", ".join(gpu.index or gpu.uuid for gpu in present) or "none"
    raise InvalidRequest(f"--gpus {name}: there is no such GPU on this machine; it has: {seen}")


def environment(gpu: Gpu) -> dict[str, str]:
    """What makes a child process see this one GPU and nothing else."""
    return {
        "CUDA_VISIBLE_DEVICES": gpu.uuid,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "MASKQ_DEVICE": "cuda",
    }
