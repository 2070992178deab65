"""The wheel with the needs of the client over HTTP alone, in an environment of its own."""

from __future__ import annotations

import venv
import zipfile
from collections.abc import Collection, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DIRECT = {"redis", "boto3"}  # of `[direct]`, which the next version moves there


def install(folder: Path, *others: str) -> Path:
    """Made without a package index. Returns the folder of the environment's commands.

    others: distributions of this environment that are there as well.
    """
    from hatchling.builders.wheel import WheelBuilder

    venv.create(folder / "env", symlinks=True)
    (packages,) = (folder / "env").glob("lib/python3*/site-packages")
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(packages)
    (metadata,) = packages.glob("maskq-*.dist-info")
    found = [*_needs(Distribution.at(metadata), DIRECT)]
    for name in others:
        found += [distribution(name), *_needs(distribution(name))]
    for one in found:
        for top in {file.parts[0] for file in one.files or () if ".." not in file.parts}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(one.locate_file(top))).resolve())
    return folder / "env" / "bin"


def _needs(made: Distribution, leave_out: Collection[str] = ()) -> Iterator[Distribution]:
    """The distributions that one requires without an extra, and theirs."""
    for line in made.requires or ():
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name in leave_out:
            continue
        found = distribution(requirement.name)
        yield found
        yield from _needs(found)
