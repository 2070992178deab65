"""Part of `make check`: tools/licences.toml allows the licence of every package that maskq installs.

It reads the metadata of the packages of deploy/lock. Those that only a machine with a GPU installs are
named in the file by hand.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from locked import read

FILE = Path(__file__).with_name("licences.toml")
LOCKS = ("worker.txt", "torch-cuda.txt", "dev.txt")
_WORDS = re.compile(r"\s+(?:AND|OR|WITH)\s+|[()]|\s*;\s*")
_CLASSIFIER = re.compile(r"License :: (?:OSI Approved :: )?(.+)")


def licences_of(name: str) -> list[str]:
    """What a package says of itself: an SPDX expression, else its classifiers, else its free text."""
    said = metadata(name)
    if expression := said.get("License-Expression"):
        return _parts(expression)
    found = [
        match[1] for one in said.get_all("Classifier", []) if (match := _CLASSIFIER.match(one))
    ]
    exact = [one for one in found if one != "OSI Approved"]
    return exact or _parts((said.get("License") or "unknown").strip().splitlines()[0])


def _parts(expression: str) -> list[str]:
    return [word for word in _WORDS.split(expression) if word.strip()]


def main() -> int:
    file = tomllib.loads(FILE.read_text())
    allowed, exceptions = set(file["allowed"]), dict(file["exceptions"])
    names = sorted({pin.name for lock in LOCKS for pin in read(lock)})
    faults = []
    for name in names:
        if exceptions.pop(name, None):
            continue
        try:
            refused = [one for one in licences_of(name) if one not in allowed]
        except PackageNotFoundError:
            faults.append(f"{name} is not installed here and not among the exceptions")
            continue
        if refused:
            faults.append(f"{name}: {', '.join(refused)} is not among the allowed licences")
    faults += [f"{name} is among the exceptions, but in no lock file" for name in exceptions]
    for fault in faults:
        print(f"{FILE.name}: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
