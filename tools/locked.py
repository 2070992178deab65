"""The lock files of deploy/lock: what they pin, with the hashes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "deploy" / "lock"
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})\b")


@dataclass(frozen=True)
class Pin:
    """One package: its version, the SHA-256 of each file that is accepted, its lines in the file."""

    name: str
    version: str
    hashes: tuple[str, ...]
    lines: str


def parse(text: str) -> list[Pin]:
    """The pins of a requirements file as uv and pip-compile write it. Raises ValueError."""
    pins = []
    for block in re.split(r"\n(?=\S)", text.strip()):
        if block.startswith("#"):
            continue
        pin = _PIN.match(block)
        hashes = tuple(_HASH.findall(block))
        if pin is None or not hashes:
            raise ValueError(f"not a version with its hashes: {block.splitlines()[0]}")
        pins.append(Pin(pin[1], pin[2], hashes, block))
    return pins


def read(name: str) -> list[Pin]:
    """The pins of deploy/lock/NAME."""
    return parse((FOLDER / name).read_text())
