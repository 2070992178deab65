"""Comparing the digests of outputs with those that a result states."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from maskq.cli.verify.files import NotReadable
from maskq.cli.verify.results import StatedResult
from maskq.contract import Output
from maskq.contract.jobs import Manifest
from maskq.contract.outputs import FILES, StoredOutput, sha256_of


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison."""

    output: str | None  # or `result.json`; None: the job did not write this file
    place: str  # what was compared: a path, s3://…, or `recomputed`
    verified: bool | None  # None: it was not compared
    expected: str | None = None  # SHA-256 in hex, as the result states it
    sha256: str | None = None  # of what was found
    problem: str = ""

    def document(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in (None, "")} | {
            "verified": self.verified
        }

    def line(self) -> str:
        verdict = {True: "ok", False: "DIFFERS", None: "not compared"}[self.verified]
        line = f"{self.output or '?'}  {verdict}  {self.place}"
        return f"{line}: {self.problem}" if self.problem else line


def check_outputs(stated: StatedResult) -> Sequence[Check]:
    """Compare every output of a result with its digest."""
    checks = [_check(stated, output) for output in stated.manifest.output_sha256]
    return [*_check_copy(stated), *checks]


def check_file(stated: StatedResult, place: str, digest: str) -> Check:
    """Find the output whose digest a file has."""
    for output, expected in stated.manifest.output_sha256.items():
        if digest == expected:
            return Check(str(output), place, True, expected, digest)
    problem = f"no output in {stated.name} has its SHA-256 {digest}"
    return Check(None, place, False, sha256=digest, problem=problem)


def compared(output: Output, place: str, expected: str, found: str, *, stated_by: str) -> Check:
    """The outcome for an output with this digest."""
    if found == expected:
        return Check(output.value, place, True, expected, found)
    problem = f"its SHA-256 is {found}, {stated_by} states {expected}"
    return Check(output.value, place, False, expected, found, problem)


def _check(stated: StatedResult, output: StoredOutput) -> Check:
    expected = stated.manifest.output_sha256[output]
    if not isinstance(output, Output):
        problem = "only a newer version of maskq knows this output"
        place = stated.manifest.outputs.get(output, "")
        return Check(output, place, None, expected, problem=problem)
    try:
        place = stated.files.place(output)
        digests = dict(_digests(stated, output))
    except NotReadable as error:
        verified = None if error.is_elsewhere else False
        return Check(output.value, error.place, verified, expected, problem=error.reason)
    return compared(output, place, expected, sha256_of(output, digests), stated_by=stated.name)


def _digests(stated: StatedResult, output: Output) -> Iterator[tuple[str, str]]:
    """File name → SHA-256 in hex."""
    for class_id in stated.manifest.labels if FILES[output].is_per_class else [0]:
        name = FILES[output].of_class(class_id)
        body = stated.files.read(output, class_id)
        yield name, hashlib.sha256(body).hexdigest()


def _check_copy(stated: StatedResult) -> Iterator[Check]:
    """Whether the result.json in the store states what the job's record states."""
    if stated.stored is None:
        return
    place, manifest = stated.stored
    same = manifest is not None and _digests_of(manifest) == _digests_of(stated.manifest)
    problem = "" if same else "it does not state the digests in the job's record"
    yield Check("result.json", place, same, problem=problem)


def _digests_of(manifest: Manifest) -> tuple[Any, ...]:
    return manifest.source_sha256, manifest.output_sha256, manifest.outputs
