"""The GPUs of this machine, and the environment that lets a worker process see exactly one of them."""

from __future__ import annotations

import os
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
    """The GPUs and MIG slices of this machine, as `nvidia-smi -L` lists them."""
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(
        ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False
    )
    return parse(listed.stdout) if listed.returncode == 0 else []


def parse(listing: str) -> list[Gpu]:
    """Parse `nvidia-smi -L`. Of a GPU that is divided into slices only the slices are listed."""
    found: list[Gpu] = []
    for line in listing.splitlines():
        if (match := _LINE.match(line)) is None:
            continue
        one = Gpu(match["uuid"], match["index"])
        if one.index is None and found and found[-1].index is not None:
            found.pop()
        found.append(one)
    return found


def chosen(wanted: str | None, *, wants_cpu: bool) -> list[Gpu]:
    """As `choose`, of the GPUs that CUDA_VISIBLE_DEVICES leaves; `wanted` may name another.

    wants_cpu: whether the settings choose the CPU; it counts only if `wanted` is None.
    """
    if wanted is None and wants_cpu:
        return []
    present = inventory()
    if wanted in (None, "all"):
        present = visible(present, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return choose(wanted, present)


def visible(present: Sequence[Gpu], named: str | None) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES names, by index or the beginning of a uuid; None: all.

    As in CUDA, the names after the first unknown one are ignored.
    """
    if named is None:
        return list(present)
    found: list[Gpu] = []
    for name in map(str.strip, named.split(",")):
        one = next(
            (g for g in present if name and (name == g.index or g.uuid.startswith(name))), None
        )
        if one is None:
            break
        found.append(one)
    return found


def choose(wanted: str | None, present: Sequence[Gpu]) -> list[Gpu]:
    """The chosen GPUs. wanted: `all`, or indices and uuids joined by commas; None: all present, if any.

    Raises InvalidRequest for a GPU that is absent: a worker must not use the CPU instead unasked.
    """
    if wanted is None:
        return list(present)
    if wanted == "all":
        if not present:
            raise InvalidRequest("--gpus all: this machine shows no GPU (nvidia-smi -L lists none)")
        return list(present)
    return [_find(name.strip(), present) for name in wanted.split(",") if name.strip()]


def _find(name: str, present: Sequence[Gpu]) -> Gpu:
    for gpu in present:
        if name in (gpu.uuid, gpu.index):
            return gpu
    seen = ", ".join(gpu.index or gpu.uuid for gpu in present) or "none"
    raise InvalidRequest(f"--gpus {name}: there is no such GPU on this machine; it has: {seen}")


def environment(gpu: Gpu) -> dict[str, str]:
    """The variables that let a child process see this GPU and no other."""
    return {
        "CUDA_VISIBLE_DEVICES": gpu.uuid,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "MASKQ_DEVICE": "cuda",
    }
