"""Runs `maskq doctor` in this process, and lets workers join a deployment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from support.ledger_harness import LedgerHarness
from typer.testing import CliRunner

from maskq.cli import build
from maskq.contract.models import ServingWorker
from maskq.ledger.calls import models

MODEL = "lab/smallest"
COMMIT = "c" * 40


@dataclass(frozen=True)
class Report:
    """What `maskq doctor --json` said."""

    code: int
    role: str
    findings: list[Mapping[str, str]]

    def of_level(self, level: str) -> set[tuple[str, str]]:
        return {(one["area"], one["name"]) for one in self.findings if one["level"] == level}

    @property
    def in_trouble(self) -> set[tuple[str, str]]:
        return self.of_level("trouble")

    def finding(self, area: str, name: str) -> Mapping[str, str]:
        (found,) = [one for one in self.findings if (one["area"], one["name"]) == (area, name)]
        return found


def doctor(*arguments: str) -> Report:
    run = CliRunner().invoke(build(), ["doctor", "--json", *arguments])
    assert run.stdout, run.output
    document = json.loads(run.stdout)
    return Report(run.exit_code, document["role"], document["findings"])


def join(harness: LedgerHarness, owner: str = "host:1", **changes: object) -> ServingWorker:
    """A worker registers itself."""
    known = {"owner": owner, "model": MODEL, "revision": COMMIT, "labels": 8, "since_ms": 1}
    worker = ServingWorker.model_validate({**known, "labels_digest": "a", **changes})
    harness.ledger.run(models.register(worker))
    return worker
