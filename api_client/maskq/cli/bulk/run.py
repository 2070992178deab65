"""One run: submits images without a job, waits for open jobs, prints a summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from maskq.cli.bulk.manifest import Manifest, default_path
from maskq.cli.bulk.sources import Found, InvalidEntry, images_of
from maskq.cli.reporting.progress import Progress
from maskq.client.bulk import CHUNK, SubmitOptions
from maskq.client.client import Client
from maskq.client.image_source import name_of, source_given
from maskq.client.job import Job
from maskq.client.operations.flow import Flow
from maskq.client.requests import Requests
from maskq.client.sending import OutageTolerance
from maskq.client.waiting.completion_cursor import CompletionCursor
from maskq.contract.image_formats import IMAGE_SUFFIXES
from maskq.contract.options import Options
from maskq.errors import InvalidRequest, MaskqError, StoreUnavailable, WaitTimeout
from maskq.inert import print_json, print_lines
from maskq.ledger.calls import BatchMembership
from maskq.settings import Settings

if TYPE_CHECKING:
    from maskq.client.image_source import ImageSource

T = TypeVar("T")

_LOOK_S = 0.4  # between two looks at the ended jobs
_CHECK_S = 30.0  # without an ended job until every open job is checked; doubles each time
_OUTAGE_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFlags:
    """The flags of a run that are not options of its jobs."""

    manifest: Path | None
    retry_failed: bool
    durable: bool
    queue_full_timeout: float | None
    wait: bool
    timeout: float | None  # seconds in which no job ends; None: no limit
    as_json: bool


def submit_recursive(
    client: Client, sources: Sequence[str], options: Options, flags: RunFlags
) -> None:
    """Submit every image of the sources. Raises typer.Exit(1) if any failed."""
    requests = Requests(options)
    settings = Settings.load()  # for S3, which a client over HTTP does not reach itself
    found = images_of(sources, settings, options.get("output_prefix"))
    path, named = flags.manifest or default_path(sources), flags.manifest is not None
    progress = Progress(quiet=flags.as_json)
    with Manifest(path, [*map(_shown, sources)], requests.options(), named=named) as manifest:
        run = _Run(client, manifest, progress, flags)
        if manifest.jobs:
            progress.say(f"resuming {path}: {len(manifest.jobs)} images already have a job")
        else:
            progress.say(f"the outcome of each image is written to {path}")
        try:
            run.submit(found, options)
            if flags.wait:
                run.wait()
        except WaitTimeout:
            run.print_summary()
            raise
        except (KeyboardInterrupt, MaskqError):
            if manifest.jobs:
                progress.say(f"{path} records what was done; run the same command again to resume")
            raise
        finally:
            progress.clear()
        run.print_summary()
        if manifest.failures:
            raise typer.Exit(1)


def _shown(source: str) -> str:
    return name_of(source) if "://" in source else str(Path(source))


class _Run:
    def __init__(
        self, client: Client, manifest: Manifest, progress: Progress, flags: RunFlags
    ) -> None:
        self._client = client
        self._manifest = manifest
        self._progress = progress
        self._flags = flags
        self._resumes = bool(manifest.jobs)
        self._cursor = CompletionCursor(client.session.deployment, manifest.run_id)
        self._outage_tolerance = OutageTolerance()
        self._last_look = time.monotonic()
        self._images = 0
        self._had_a_job = 0
        self._submitted = 0

    def submit(self, found: Iterable[Found], options: Options) -> None:
        """Submit the images that have no job yet."""
        if self._resumes and (self._flags.wait or self._flags.retry_failed):
            self._check()
        session = self._client.session
        bulk = session.deployment.bulk(
            lambda job_id: Job(session, None, job_id), self._submit_options(), options
        )
        for step in bulk.steps(self._without_job(found)):
            for _, (image, job, error) in session.drive(step):
                if error:
                    self._manifest.refused(name_of(image), error)
                elif job:
                    source = source_given(image)
                    self._submitted += self._manifest.accepted(name_of(image), job.id, source)
            self._manifest.flush()
            if self._flags.wait and time.monotonic() > self._last_look + _LOOK_S:
                self._look()
            self._show_submitted(bulk.held_up)
        if not self._images and not self._manifest.jobs:
            known = ", ".join(IMAGE_SUFFIXES)
            raise InvalidRequest(f"found no image; known suffixes: {known}")

    def wait(self) -> None:
        """Wait until all jobs have ended. Raises WaitTimeout."""
        if self._resumes:
            self._check()  # a job may have ended before the manifest recorded it
        manifest, timeout = self._manifest, self._flags.timeout
        total, left = len(manifest.jobs), len(manifest.open)
        self._progress.begin(total - left)
        last, check_s = time.monotonic(), _CHECK_S
        while manifest.open:
            if not self._look():
                time.sleep(_LOOK_S)
            idle_s = time.monotonic() - last
            if len(manifest.open) < left:
                left, last, check_s = len(manifest.open), time.monotonic(), _CHECK_S
            elif timeout is not None and idle_s > timeout:
                raise WaitTimeout(
                    f"{left} of {total} jobs have not ended, none for {timeout:g} s; they continue, "
                    f"and the same command waits for them again"
                )
            elif idle_s > check_s:
                check_s *= 2
                self._check()
            self._progress.show(total - left, "ended", of=total, failed=len(manifest.failures))

    def print_summary(self) -> None:
        """Print the summary on stdout."""
        manifest = self._manifest
        summary = {
            "run_id": manifest.run_id,
            "manifest": str(manifest.path),
            "images": self._images,
            "submitted": self._submitted,
            "had_a_job": self._had_a_job,
            "succeeded": manifest.succeeded,
            "failed": len(manifest.failures),
            "not_ended": len(manifest.open),  # as of the last look
            "failures": manifest.codes(),
        }
        self._progress.clear()
        if self._flags.as_json:
            print_json(summary)
        else:
            print_lines(*_lines(summary))

    def _submit_options(self) -> SubmitOptions:
        return SubmitOptions(
            batch=BatchMembership(batch_id=self._manifest.run_id, total=0),
            run_id=self._manifest.run_id,
            retry_of=self._failed_job,
            durable=self._flags.durable,
            queue_full_timeout=self._flags.queue_full_timeout,
        )

    def _failed_job(self, _number: int, image: ImageSource) -> str:
        return self._manifest.failed_job(name_of(image))

    def _without_job(self, found: Iterable[Found]) -> Iterator[str]:
        for one in found:
            self._images += 1
            self._manifest.begin()
            if isinstance(one, InvalidEntry):
                self._manifest.refused(name_of(one.name), one.error)
            elif self._manifest.is_settled(name_of(one), self._flags.retry_failed):
                self._had_a_job += 1
            else:
                yield one
            self._show_submitted()

    def _look(self) -> int:
        """The number of jobs that ended since the last look; 0 while Redis is briefly unavailable."""
        ended = self._tolerating_outages(self._cursor.look)
        self._last_look = time.monotonic()
        self._record(ended or {})
        return len(ended or {})

    def _check(self) -> None:
        """Read the record of each open job. Later ends are found by `_look`."""
        self._tolerating_outages(self._cursor.skip)
        job_ids = iter(list(self._manifest.open))
        read = self._client.session.deployment.records
        while some := list(islice(job_ids, CHUNK)):
            records = self._tolerating_outages(partial(read, some)) or {}
            self._record({i: r for i, r in records.items() if r is None or r.ended})

    def _tolerating_outages(self, flow: Callable[[], Flow[T]]) -> T | None:
        """The flow's result; None while Redis is briefly unavailable. The next check catches up."""
        try:
            answer: T = self._client.session.drive(flow())
        except StoreUnavailable as error:
            if self._outage_tolerance.ends_with(error):
                raise
            time.sleep(_OUTAGE_PAUSE_S)
            return None
        self._outage_tolerance.answered()
        return answer

    def _record(self, ended: Mapping[str, Any]) -> None:
        for job_id, record in ended.items():
            self._manifest.ended(job_id, record)
        self._manifest.flush()

    def _show_submitted(self, held_up: str = "") -> None:
        failed = len(self._manifest.failures)
        self._progress.show(self._submitted, "submitted", failed=failed, note=held_up)


def _lines(summary: Mapping[str, Any]) -> Iterator[str]:
    yield "{images} images: {submitted} submitted, {had_a_job} already had a job".format_map(
        summary
    )
    yield "{succeeded} succeeded, {failed} failed, {not_ended} have not ended".format_map(summary)
    for code, count in summary["failures"].items():
        yield f"  {count} {code}"
    if summary["failures"]:
        yield f"to list them: grep '\"code\"' {summary['manifest']}"
