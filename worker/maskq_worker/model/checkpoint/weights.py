"""Downloads a checkpoint as safetensors, pinned to a commit. Workers read it from the disk."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from maskq_worker.model.checkpoint.files import (
    CONFIG,
    INDEX,
    PICKLE,
    PREPROCESSOR,
    PROCESSOR,
    RECORD,
    SAFETENSORS,
    is_hub_id,
    model_folder,
    read_json,
    sha256_of,
    shards,
    weight_files,
    weights_root,
)
from maskq_worker.model.checkpoint.folder import check_config, check_layout
from maskq_worker.model.errors import ModelError

if TYPE_CHECKING:
    import torch

DEFAULT_REVISION: Final = "main"


@dataclass(frozen=True)
class PulledWeights:
    """A downloaded checkpoint. maskq.json in `directory` has the same fields."""

    model: str  # hub id
    revision: str  # full commit, as the hub resolved it
    requested: str  # the branch, tag or commit that the caller gave
    files: dict[str, str]  # name → SHA-256
    converted_from: str | None  # `pytorch_model.bin`; None if the hub has safetensors
    pulled_at: str  # ISO 8601, UTC; by default a worker takes the latest
    directory: Path


class Hub(Protocol):
    """A source of checkpoints for `pull`. Both methods raise ModelError."""

    def list(self, model: str, revision: str) -> tuple[str, Mapping[str, str | None]]:
        """The full commit, and by file name the SHA-256; None if the hub does not state it."""
        ...

    def fetch(self, model: str, commit: str, name: str, directory: Path) -> None:
        """Write the file `name` into `directory`."""
        ...


def pull(
    model: str, revision: str | None = None, *, root: Path | None = None, hub: Hub | None = None
) -> PulledWeights:
    """Download a model of the hub, unless it is there already. Raises ModelError.

    The folder is named by the full commit. It appears complete or not at all.

    Args:
        model: the hub id, ORGANISATION/NAME.
        revision: a branch, tag or commit; default: `main`.
        root: default: `weights_root()`.
        hub: default: the Hugging Face hub.
    """
    if not is_hub_id(model):
        raise ModelError(f"{model!r} is not a hub id: expected organisation/name")
    hub = hub or HuggingFaceHub()
    requested = revision or DEFAULT_REVISION
    commit, listed = hub.list(model, requested)
    parent = model_folder(root or weights_root(), model)
    if not (parent / commit / RECORD).is_file():
        with _staging(parent) as staging:
            converted_from = _fetch(hub, model, commit, listed, staging)
            _record(staging, model, commit, requested, converted_from)
            _publish(staging, parent / commit)
    record = read_json(parent / commit / RECORD)
    return _record(parent / commit, model, commit, requested, record["converted_from"])


def convert(directory: Path) -> Path:
    """Write model.safetensors from the pytorch_model.bin beside it. Returns the new file.

    torch's restricted unpickler reads the pickle and runs no code of it. Raises ModelError.
    """
    from safetensors.torch import save_file

    target = directory / SAFETENSORS
    if weight_files(directory):
        return target
    pickles = weight_files(directory, PICKLE)
    if not pickles:
        raise ModelError(f"{directory} has no {PICKLE} to convert")
    tensors: dict[str, torch.Tensor] = {}
    for pickle in pickles:
        tensors |= _load_pickle(pickle)
    partial = target.with_name(f".{SAFETENSORS}.{os.getpid()}")
    try:
        save_file(_unshared(tensors), partial, metadata={"format": "pt"})
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


class HuggingFaceHub:
    """The Hugging Face hub, by its own client, which reads HF_ENDPOINT, HF_TOKEN and proxies."""

    def list(self, model: str, revision: str) -> tuple[str, Mapping[str, str | None]]:
        from huggingface_hub import HfApi

        with _hub_errors(model, revision):
            info = HfApi().model_info(model, revision=revision, files_metadata=True)
        if not info.sha:
            raise ModelError(f"the hub names no commit for {model} at {revision}")
        return info.sha, {
            file.rfilename: file.lfs.sha256 if file.lfs else None for file in info.siblings or []
        }

    def fetch(self, model: str, commit: str, name: str, directory: Path) -> None:
        from huggingface_hub import hf_hub_download

        with _hub_errors(model, commit):
            hf_hub_download(model, name, revision=commit, local_dir=directory)


@contextmanager
def _hub_errors(model: str, revision: str) -> Iterator[None]:
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{model} asks for consent: accept its terms on the hub and set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"the hub has no model {model}, or it is private and HF_TOKEN does not allow it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{model} has no revision {revision} on the hub") from error
    except Exception as error:  # huggingface_hub's HTTP library and its errors vary by version
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{model} could not be fetched: {reason}; check that the hub can be reached from here"
        ) from error


@contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".pull-", dir=parent))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _fetch(
    hub: Hub, model: str, commit: str, listed: Mapping[str, str | None], directory: Path
) -> str | None:
    """Download a checkpoint into `directory` and check it. Returns PICKLE if it was converted."""

    def download(name: str) -> None:
        if name not in listed:
            raise ModelError(f"{model} at {commit} has no {name}")
        hub.fetch(model, commit, name, directory)
        if listed[name] not in (None, sha256_of(directory / name)):
            raise ModelError(f"{name} of {model} arrived damaged: pull again")

    download(CONFIG)
    for name in (PROCESSOR, PREPROCESSOR):
        if name in listed:
            download(name)
    check_config(directory)  # before more than a gigabyte is fetched
    kind = SAFETENSORS if {SAFETENSORS, SAFETENSORS + INDEX} & listed.keys() else PICKLE
    if kind in listed:
        download(kind)
    else:
        download(kind + INDEX)
        for name in shards(directory / (kind + INDEX)):
            download(name)
    shutil.rmtree(directory / ".cache", ignore_errors=True)  # written by the hub's client
    if kind == PICKLE:
        convert(directory)
        for pickle in directory.glob("pytorch_model*"):
            pickle.unlink()
    check_layout(directory)
    return PICKLE if kind == PICKLE else None


def _publish(staging: Path, final: Path) -> None:
    staging.chmod(0o755)  # mkdtemp made it private, but workers of other users read weights
    try:
        staging.rename(final)
    except OSError:
        if not (final / RECORD).is_file():  # otherwise another pull of this commit was faster
            raise


def _record(
    directory: Path, model: str, commit: str, requested: str, converted_from: str | None
) -> PulledWeights:
    """Write maskq.json atomically. Returns its content."""
    files = {
        path.name: sha256_of(path)
        for path in sorted(directory.iterdir())
        if path.name != RECORD and not path.name.startswith(".")
    }
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    pulled = PulledWeights(model, commit, requested, files, converted_from, now, directory)
    fields: dict[str, Any] = {k: v for k, v in asdict(pulled).items() if k != "directory"}
    partial = directory / f".{RECORD}.{os.getpid()}"
    partial.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    partial.replace(directory / RECORD)
    return pulled


def _load_pickle(path: Path) -> dict[str, torch.Tensor]:
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and zipfile raise different ones
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path} does not hold plain weights: {reason}") from error
    if not isinstance(loaded, dict) or not loaded:
        raise ModelError(f"{path} does not hold a table of weights")
    odd = [name for name, value in loaded.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise ModelError(f"{path} holds {odd[0]!r}, which is not a tensor")
    return loaded


def _unshared(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same values. Each tensor has its own memory, because safetensors writes no shared memory."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        whole = tensor.is_contiguous() and storage.nbytes() == tensor.nbytes
        own = whole and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        result[name] = tensor.detach() if own else tensor.detach().contiguous().clone()
    return result
