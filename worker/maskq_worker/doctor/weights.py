"""Weights: there, readable, and those that were pulled or that other workers serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskq.cli.doctor.check import Check, Finding, Role, Target, ok, trouble, unknown, warning
from maskq.client.client import Client
from maskq.errors import InvalidRequest, MaskqError
from maskq_worker.model.checkpoint.files import RECORD, read_json, sha256_of
from maskq_worker.model.checkpoint.folder import Checkpoint, resolve, served_name
from maskq_worker.model.errors import ModelError
from maskq_worker.settings import WorkerSettings


class WeightsCheck(Check):
    area = "weights"
    roles = frozenset({Role.WORKER})

    def run(self, target: Target) -> Iterator[Finding]:
        try:
            settings = WorkerSettings.load()
        except InvalidRequest:
            yield unknown("weights", "the settings are not valid")
            return
        model = settings.model or ""
        try:
            checkpoint = resolve(model, settings.model_revision)
            revision = checkpoint.revision or f"sha256:{checkpoint.sha256}"
        except ModelError as error:
            yield trouble("presence", str(error), f"maskq weights pull {model}")
            return
        yield ok("presence", f"{checkpoint.directory}, revision {revision}")
        yield _recorded(checkpoint)
        yield _same_as_others(served_name(model, settings.model_name), revision)


def _recorded(checkpoint: Checkpoint) -> Finding:
    """Whether the files are those that `maskq weights pull` recorded."""
    record = checkpoint.directory / RECORD
    if not record.is_file():
        return unknown(
            "digests",
            "no record of `maskq weights pull`: it is not known which files they should be",
            "compare the revision above with that of the checkpoint's author",
        )
    changed = _changed(checkpoint.directory, read_json(record))
    if changed:
        return trouble(
            "digests",
            f"not the files that were pulled: {', '.join(changed)}",
            f"remove {checkpoint.directory} and run: maskq weights pull {checkpoint.name}",
        )
    return ok("digests", "every file is as it was pulled")


def _changed(directory: Path, record: dict[str, Any]) -> list[str]:
    files: dict[str, str] = record["files"]
    return [
        name
        for name, digest in sorted(files.items())
        if not (directory / name).is_file() or sha256_of(directory / name) != digest
    ]


def _same_as_others(name: str, revision: str) -> Finding:
    """Whether the live workers of the model serve the same revision."""
    try:
        with Client.from_env() as client:
            found = {one.revision for one in client.workers() if one.model == name}
    except MaskqError as error:
        return unknown("other workers", f"not compared: {error}")
    if not found:
        return unknown("other workers", f"none serves {name}: nothing to compare with")
    if found != {revision}:
        return warning(
            "other workers",
            f"they serve {name} in revision {', '.join(sorted(found))}, here is {revision}",
            "nothing during a rolling upgrade; else copy the weights of the other workers",
        )
    return ok("other workers", f"all serve {name} in this revision")
