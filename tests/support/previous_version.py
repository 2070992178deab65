"""The previous release, built from this repository's history into a folder for PYTHONPATH."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tools.releases import PREVIOUS, ROOT


class NoHistory(Exception):
    """The checkout does not have the commit of the previous release."""


def build(directory: Path) -> Path:
    """The folder with the previous release's packages and its entry points.

    They go before the checkout's own: its wheel is unpacked there. Raises NoHistory.
    """
    archive = subprocess.run(["git", "archive", PREVIOUS], cwd=ROOT, capture_output=True)
    if archive.returncode:
        raise NoHistory(
            f"{PREVIOUS}, the previous release, is not in this checkout: "
            f"{archive.stderr.decode().strip()}. Fetch the history first: git fetch --unshallow --tags"
        )
    sources, wheels, packages = (directory / name for name in ("sources", "wheels", "packages"))
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(sources, filter="data")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(command, cwd=sources, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(packages)  # noqa: S202  # it is built here
    return packages
