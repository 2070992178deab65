"""The files of a checkpoint in the hub's layout, and how each is read. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, Final

from maskq_worker.model.errors import ModelError

CONFIG: Final = "config.json"
PREPROCESSOR: Final = "preprocessor_config.json"
PROCESSOR: Final = "processor_config.json"  # newer; contains the image processor's settings
SAFETENSORS: Final = "model.safetensors"
PICKLE: Final = "pytorch_model.bin"  # read only by `maskq weights`, without running code
INDEX: Final = ".index.json"  # of weights in several files
RECORD: Final = "maskq.json"  # written by `maskq weights pull`
# Bytes. At each block the thread releases the interpreter's lock, and may wait 5 ms to get it back.
_BLOCK: Final = 2**24
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def is_hub_id(model: str) -> bool:
    return _HUB_ID.fullmatch(model) is not None and not model.startswith(".")


def weights_root() -> Path:
    """Where `maskq weights pull` keeps what it fetched."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "maskq" / "weights"


def model_folder(root: Path, model: str) -> Path:
    """The folder of all pulled revisions of a hub id."""
    return root / model.replace("/", "--")


def read_preprocessor(directory: Path) -> tuple[Path, dict[str, Any]]:
    """Read the image processor's settings. Returns their file, too.

    As in transformers, processor_config.json comes first. Raises ModelError.
    """
    path = directory / PROCESSOR
    if path.is_file() and (nested := read_json(path).get("image_processor")) is not None:
        if not isinstance(nested, dict):
            raise ModelError(f"{path}: image_processor is not a JSON object")
        return path, nested
    return directory / PREPROCESSOR, read_json(directory / PREPROCESSOR)


def weight_files(directory: Path, name: str = SAFETENSORS) -> list[Path]:
    """The files that hold the weights, in order; an empty list if there are none.

    name: `model.safetensors`, or `pytorch_model.bin` for the pickled layout.
    """
    if (directory / name).is_file():
        return [directory / name]
    index = directory / f"{name}{INDEX}"
    if not index.is_file():
        return []
    files = [directory / part for part in shards(index)]
    for file in files:
        if not file.is_file():
            raise ModelError(f"{directory} is incomplete: {file.name} is missing")
    return files


def shards(index: Path) -> list[str]:
    """The names of the files that an index of several weight files lists."""
    names = sorted(set(read_json(index).get("weight_map", {}).values()))
    if any(Path(name).name != name for name in names):
        raise ModelError(f"{index} names files outside its own folder")
    return names


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path.parent} is not a model in the hub's layout: {path.name} is missing"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object")
    return value


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    block = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


def sha256_of_all(paths: list[Path]) -> str:
    digests = [sha256_of(path) for path in paths]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
