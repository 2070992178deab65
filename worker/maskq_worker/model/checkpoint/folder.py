"""Find a model: a folder in the hub's layout, checked before anything is loaded."""

from __future__ import annotations

import importlib.util
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from maskq.contract.models import ModelName
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
    read_preprocessor,
    sha256_of_all,
    weight_files,
    weights_root,
)
from maskq_worker.model.checkpoint.labels import labels_of
from maskq_worker.model.errors import ModelError
from maskq_worker.model.families import family_of

DEMO: Final = "demo"
_MODEL_NAME: Final[TypeAdapter[str]] = TypeAdapter(ModelName)


@dataclass(frozen=True)
class Checkpoint:
    """A folder with config.json, the image processor's settings and weights as safetensors."""

    directory: Path
    name: str  # as served: a hub id as it is, `demo`, or a folder's name
    revision: str | None = None  # full commit of the hub, where it is known

    @property
    def sha256(self) -> str:
        """The SHA-256 of the weights; of several files, of their hashes in order of name."""
        return self._sha256.result()

    def begin_sha256(self) -> None:
        """Start to compute the SHA-256 in another thread, unless a commit identifies the weights."""
        if self.revision is None:
            _ = self._sha256

    @cached_property
    def _sha256(self) -> Future[str]:
        """Computed in a daemon thread: only readers of the value wait for it."""
        answer: Future[str] = Future()

        def work() -> None:
            try:
                answer.set_result(sha256_of_all(weight_files(self.directory)))
            except Exception as error:  # noqa: BLE001 - raised to readers of the value
                answer.set_exception(error)

        threading.Thread(target=work, name="maskq-sha256", daemon=True).start()
        return answer


def resolve(model: str, revision: str | None = None) -> Checkpoint:
    """Find a model on this machine: `demo`, a folder, or a hub id pulled or cached before.

    Nothing is downloaded. Raises ModelError with what to do.
    """
    if model == DEMO:
        return _same_revision(Checkpoint(_demo(), DEMO), revision)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _same_revision(_from_folder(folder.resolve()), revision)
    if not is_hub_id(model):
        raise ModelError(
            f"there is no folder {model!r}: a model is a hub id (organisation/name), a folder in "
            "the hub's layout, or `demo`"
        )
    found = _pulled(model, revision) or _cached(model, revision)
    if found is None:
        at = f" at {revision}" if revision else ""
        pull = f"maskq weights pull {model}" + (f" --revision {revision}" if revision else "")
        raise ModelError(
            f"{model}{at} is not on this machine: run `{pull}` where the hub can be reached, or "
            "set MASKQ_MODEL to a folder in the hub's layout or to `demo`"
        )
    return found


def served_name(model: str, chosen: str | None = None) -> str:
    """The name under which jobs ask for `model`, without reading its weights.

    `chosen`: MASKQ_MODEL_NAME, which overrides the hub's id and the folder's name. Raises ModelError
    for a folder whose name is not a valid model name.
    """
    if chosen:
        return chosen
    folder = Path(model).expanduser()
    if model == DEMO or not folder.is_dir():
        return model
    name = _name_and_revision(folder.resolve())[0]
    try:
        return _MODEL_NAME.validate_python(name)
    except ValidationError as error:
        raise ModelError(
            f"{model!r} cannot be served by its name {name!r} ({error.errors()[0]['msg']}): "
            f"choose one with MASKQ_MODEL_NAME"
        ) from None


def check_layout(directory: Path, convert: str | None = None) -> None:
    """Raises ModelError unless `directory` holds a checkpoint of a known family as safetensors.

    convert: the command that makes safetensors, for the message if there is only a pickle.
    """
    check_config(directory)
    if weight_files(directory):
        return
    if list(directory.glob("pytorch_model*.bin")):
        raise ModelError(
            f"{directory} has its weights only as {PICKLE}, a pickle, which is never loaded by a "
            f"worker: run `{convert or f'maskq weights convert {directory}'}` once"
        )
    raise ModelError(f"{directory} has no weights: {SAFETENSORS} is missing")


def check_config(directory: Path) -> None:
    """The part of `check_layout` that needs no weights."""
    config = read_json(directory / CONFIG)
    family_of(config, directory)
    labels_of(config, directory / CONFIG)
    read_preprocessor(directory)


def _demo() -> Path:
    # The stack is a layer above the worker, so it is found without an import: a worker alone has no
    # demo checkpoint.
    spec = importlib.util.find_spec("maskq_standalone")
    for place in spec.submodule_search_locations or [] if spec else []:
        directory = Path(place) / "demo" / "checkpoint"
        if directory.is_dir():
            check_layout(directory)
            return directory
    raise ModelError(
        "the demo checkpoint is not installed: run `pip install 'maskq[standalone]'`, or set "
        "MASKQ_MODEL to a hub id or a folder"
    )


def _from_folder(directory: Path) -> Checkpoint:
    check_layout(directory)
    return Checkpoint(directory, *_name_and_revision(directory))


def _name_and_revision(directory: Path) -> tuple[str, str | None]:
    """The recorded ones of a pulled model; else the folder's name and None."""
    if not (directory / RECORD).is_file():
        return directory.name, None
    record = read_json(directory / RECORD)
    return str(record["model"]), str(record["revision"])


def _same_revision(checkpoint: Checkpoint, wanted: str | None) -> Checkpoint:
    if wanted and wanted != checkpoint.revision:
        raise ModelError(
            f"MASKQ_MODEL_REVISION is {wanted}, but {checkpoint.directory} is "
            f"{checkpoint.revision or 'of no known revision'}: unset it, or name the hub id"
        )
    return checkpoint


def _pulled(model: str, revision: str | None) -> Checkpoint | None:
    """The pulled model of a revision (a commit, or the name it was pulled by); default: the latest."""
    records = [
        (read_json(path), path.parent)
        for path in model_folder(weights_root(), model).glob(f"*/{RECORD}")
        if not path.parent.name.startswith(".")  # an unfinished pull
    ]
    matching = [
        (record["pulled_at"], folder)
        for record, folder in records
        if revision in (None, record["revision"], record["requested"])
    ]
    if not matching:
        return None
    return _from_folder(max(matching)[1])


def _cached(model: str, revision: str | None) -> Checkpoint | None:
    """The model from the hub's own cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    needed = [CONFIG, PREPROCESSOR, PROCESSOR, "model*.safetensors", f"{SAFETENSORS}{INDEX}"]
    try:
        folder = Path(
            snapshot_download(
                model, revision=revision, local_files_only=True, allow_patterns=needed
            )
        )
    except (OSError, HFValidationError):  # missing, or incomplete
        return None
    if not (folder / CONFIG).is_file():
        return None
    check_layout(folder, convert=f"maskq weights pull {model}")
    return Checkpoint(folder, model, folder.name)
