"""Runs images with two models through the queue, and compares their masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from maskq.cli.bulk.sources import Found, InvalidEntry
from maskq.cli.comparison.findings import Findings
from maskq.cli.comparison.masks import NotComparable
from maskq.client.client import Client
from maskq.client.image_source import name_of
from maskq.client.job import Job
from maskq.contract import Output
from maskq.contract.image_formats import IMAGE_SUFFIXES
from maskq.contract.options import Options
from maskq.errors import InvalidRequest, JobFailed, JobNotFound, MaskqError


@dataclass(frozen=True, slots=True)
class Pair:
    """An image, and its job with each model."""

    image: str
    first: Job
    second: Job


@dataclass(slots=True)
class Comparison:
    """Two models on the same images."""

    client: Client
    models: tuple[str, str]
    options: Options
    timeout: float | None  # seconds to wait for a job; None: no limit
    findings: Findings = field(default_factory=Findings)
    pairs: dict[str, Pair] = field(default_factory=dict)  # by image

    def run(self, images: Iterable[Found], show: Callable[[int, str], None]) -> None:
        """Submit all images with both models, then compare pair by pair.

        show: called with a count and what it counts. An error or an interruption cancels the jobs that
        have not ended. Raises UnknownModel, StoreUnavailable, WaitTimeout.
        """
        jobs: list[Job] = []
        try:
            self._submit(images, jobs, show)
            for number, pair in enumerate(self.pairs.values()):
                show(number, "compared")
                self._compare(pair)
        except BaseException:
            for job in jobs:
                if job.record is None or not job.record.ended:
                    job.cancel()
            raise

    def document(self) -> dict[str, Any]:
        """As JSON, with each image: the ones that differ most come first."""
        found = self.findings.differences
        each = [(self.pairs[image], share) for image, share in found.worst(len(found.pairs))]
        return {
            "images": len(each),
            **self.findings.document(),
            "each": [
                {
                    "image": pair.image,
                    "jobs": [pair.first.id, pair.second.id],
                    "differing_share": share,
                }
                for pair, share in each
            ],
        }

    def _submit(
        self, images: Iterable[Found], jobs: list[Job], show: Callable[[int, str], None]
    ) -> None:
        first = dict(self._submitted(self._valid(images), self.models[0], jobs, show))
        if not first and not self.findings.skipped:
            raise InvalidRequest(f"found no image; known suffixes: {', '.join(IMAGE_SUFFIXES)}")
        for image, job in self._submitted(first, self.models[1], jobs, show):
            self.pairs[image] = Pair(name_of(image), first[image], job)

    def _valid(self, images: Iterable[Found]) -> Iterator[str]:
        for image in images:
            if isinstance(image, InvalidEntry):
                self.findings.skipped[str(image.error)] += 1
            else:
                yield image

    def _submitted(
        self, images: Iterable[str], model: str, jobs: list[Job], show: Callable[[int, str], None]
    ) -> Iterator[tuple[str, Job]]:
        options: Options = {**self.options, "model": model, "outputs": [Output.MASK]}
        for image, job, error in self.client.submit_each(images, **options):
            if job:
                jobs.append(job)
                show(len(jobs), "submitted")
                yield str(image), job
            else:
                self.findings.skipped[str(error)] += 1

    def _compare(self, pair: Pair) -> None:
        try:
            results = [job.wait(self.timeout) for job in (pair.first, pair.second)]
            self.findings.add(pair.image, *results)
        except (JobFailed, JobNotFound, InvalidRequest, NotComparable) as error:
            self.findings.skipped[_reason(error)] += 1


def _reason(error: MaskqError | NotComparable) -> str:
    """Without the job's id, so that equal reasons are counted together."""
    if isinstance(error, JobFailed):
        failure = error.record.error
        return (
            f"{error.record.model} {error.record.status.value}: {failure.code if failure else ''}"
        )
    return str(error)
