"""`make lock`: write deploy/lock anew, with the versions that are installed here, which were tested.

worker.txt   the worker's image, without torch      torch-cuda.txt  torch of PyPI, with CUDA
gateway.txt  the image of the gateway and webhooks  torch-cpu.txt   torch's CPU build
dev.txt      what CI installs, without torch

torch has files of its own, because two builds of one version exclude each other and lie on two indexes.
All are for CPython 3.11 on Linux. To move to newer versions: make lock ARGS=--upgrade, then make test.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

from locked import FOLDER, Pin, parse

ROOT = Path(__file__).parents[1]
# What builds our own wheel, so that pip downloads nothing by itself; the second for an editable one.
BUILD, EDITABLE = "hatchling>=1.27\n", "editables>=0.5\n"
HEADER = "# Written by `make lock`. For CPython 3.11 on Linux x86_64.\n"
_OPEN = ("maskq", "triton")
TARGET = ("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--upgrade", action="store_true", help="the newest versions that fit")
    arguments.add_argument(
        "--torch-index", help="an index with torch's CPU build; default: pip's own"
    )
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        installed = Path(folder) / "installed.txt"
        installed.write_text("" if given.upgrade else _installed())
        worker = _resolved(installed, ("worker", "gateway", "traces"), BUILD, folder)
        gateway = _resolved(installed, ("gateway", "traces"), BUILD, folder)
        dev = _resolved(installed, ("dev",), BUILD + EDITABLE, folder)
        _write("worker.txt", (pin for pin in worker if not _of_cuda(pin) and pin.name != "triton"))
        _write("torch-cuda.txt", (pin for pin in worker if _of_cuda(pin) or pin.name == "triton"))
        _write("gateway.txt", gateway)
        # CI runs the Triton kernels in Triton's interpreter, without a GPU.
        _write("dev.txt", (pin for pin in dev if not _of_cuda(pin)))
        torch = next(pin.version for pin in worker if pin.name == "torch")
        _write("torch-cpu.txt", [_cpu_build(torch, given.torch_index, Path(folder))])


def _installed() -> str:
    """triton is left open: torch's CUDA build says which one it needs."""
    found = {one.name: one.version.partition("+")[0] for one in distributions()}
    lines = (f"{name}=={version}\n" for name, version in found.items() if name not in _OPEN)
    return "".join(sorted(lines))


def _resolved(installed: Path, extras: Iterable[str], build: str, folder: str) -> list[Pin]:
    wanted, out = Path(folder) / "build.in", Path(folder) / "resolved.txt"
    wanted.write_text(build)
    chosen = [part for extra in extras for part in ("--extra", extra)]
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "pyproject.toml", str(wanted)),
        *(*chosen, *TARGET, "--constraint", str(installed), "--output-file", str(out)),
        *("--generate-hashes", "--no-header", "--no-annotate"),
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    pins = parse(out.read_text())
    out.unlink()  # uv would take it for a wish
    return pins


def _of_cuda(pin: Pin) -> bool:
    return pin.name == "torch" or pin.name.startswith(("nvidia-", "cuda-"))


def _cpu_build(version: str, index: str | None, folder: Path) -> Pin:
    """Of the wheel that pip chooses for CPython 3.11 here: no index tells its hash to uv."""
    wanted = f"torch=={version}+cpu"
    where = ["--index-url", index] if index else []
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
    ]
    subprocess.run([*command, *where, wanted], check=True)
    (wheel,) = folder.glob("torch-*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Pin("torch", f"{version}+cpu", (found,), f"{wanted} \\\n    --hash=sha256:{found}")


def _write(name: str, pins: Iterable[Pin]) -> None:
    kept = sorted(pins, key=lambda pin: pin.name)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / name).write_text(HEADER + "".join(f"{pin.lines}\n" for pin in kept))
    print(f"{name}: {len(kept)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
