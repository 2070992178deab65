"""One run: submit what has no job yet, wait for what has not ended, sum up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from maskq import s3
from maskq.cli.bulk.manifest import Manifest, default_path
from maskq.cli.bulk.progress import Progress
from maskq.cli.bulk.sources import Bad, Found, images_in
from maskq.client.bulk import CHUNK, Bulk, SubmitOptions, name_of
from maskq.client.client import Client
from maskq.client.job import Job
from maskq.client.operations.flow import Flow
from maskq.client.requests import Options, Requests
from maskq.client.sending import OutageTolerance
from maskq.client.waiting.completion_cursor import CompletionCursor, records_of
from maskq.contract.locations import IMAGE_SUFFIXES, S3Uri
from maskq.errors import InvalidRequest, MaskqError, StoreUnavailable, WaitTimeout
from maskq.inert import print_json, print_lines
from maskq.ledger.calls import BatchMembership

if TYPE_CHECKING:
    from maskq.client.bulk import ImageSource
    from maskq.settings import Settings

T = TypeVar("T")

_LOOK_S = 0.4  # what ends meanwhile is looked at together
_CHECK_S = 30.0  # without an end: were some missed? Then twice as long, and so on
_OUTAGE_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a caller wants beside the options of the jobs."""

    manifest: Path | None
    retry_failed: bool
    durable: bool
    room_timeout: float | None
    wait: bool
    timeout: float | None  # seconds in which no job ends; None: no limit
    as_json: bool


def submit_recursive(
    client: Client, sources: Sequence[str], options: Options, asked: Asked
) -> None:
    """Submit every image of the sources. Raises typer.Exit(1) if any failed."""
    requests = Requests(options)
    found = images_in(sources, _connector(client.settings), _outputs(client, options))
    path, named = asked.manifest or default_path(sources), asked.manifest is not None
    progress = Progress(quiet=asked.as_json)
    with Manifest(path, [*map(_shown, sources)], requests.options(), named=named) as manifest:
        run = _Run(client, manifest, progress, asked)
        if manifest.jobs:
            progress.say(f"going on with {path}: {len(manifest.jobs)} images have a job already")
        else:
            progress.say(f"what becomes of each image is written to {path}")
        try:
            run.submit(found, options)
            if asked.wait:
                run.wait()
        except WaitTimeout:
            run.sum_up()
            raise
        except (KeyboardInterrupt, MaskqError):
            if manifest.jobs:
                progress.say(f"{path} holds what was done; the same command goes on from there")
            raise
        finally:
            progress.clear()
        run.sum_up()
        if manifest.failures:
            raise typer.Exit(1)


def _shown(source: str) -> str:
    return name_of(source) if "://" in source else str(Path(source))


def _outputs(client: Client, options: Mapping[str, Any]) -> list[S3Uri]:
    """Where images must not be looked for."""
    places = [S3Uri(client.settings.s3_bucket, client.settings.output_prefix)]
    if chosen := options.get("output_prefix"):
        place = S3Uri.parse(chosen, key_required=False)
        places.append(S3Uri(place.bucket, place.key.rstrip("/")))
    return places


class _Run:
    def __init__(
        self, client: Client, manifest: Manifest, progress: Progress, asked: Asked
    ) -> None:
        self._client = client
        self._manifest = manifest
        self._progress = progress
        self._asked = asked
        self._goes_on = bool(manifest.jobs)
        self._endings = CompletionCursor(manifest.run_id)
        self._outage_tolerance = OutageTolerance()
        self._looked = time.monotonic()
        self._images = 0
        self._had_a_job = 0
        self._submitted = 0

    def submit(self, found: Iterable[Found], options: Options) -> None:
        """What has no job yet."""
        if self._goes_on and (self._asked.wait or self._asked.retry_failed):
            self._check()
        bulk = Bulk(self._client.session, Job, self._manner(), options)
        for step in bulk.steps(self._wanted(found)):
            for _, (image, job, error) in self._client.session.drive(step):
                if error:
                    self._manifest.refused(name_of(image), error)
                elif job:
                    self._submitted += self._manifest.accepted(name_of(image), job.id)
            self._manifest.flush()
            if self._asked.wait and time.monotonic() > self._looked + _LOOK_S:
                self._look()
            self._show_submitted(bulk.held_up)
        if not self._images and not self._manifest.jobs:
            known = ", ".join(sorted(IMAGE_SUFFIXES))
            raise InvalidRequest(f"there is no image, nothing whose name ends in {known}")

    def wait(self) -> None:
        """Until all have ended. Raises WaitTimeout."""
        if self._goes_on:
            self._check()  # some may have ended before this manifest knew that they were accepted
        manifest, timeout = self._manifest, self._asked.timeout
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
                    f"{left} of {total} jobs have not ended, none for {timeout:g} s; they go on, "
                    f"and the same command waits for them again"
                )
            elif idle_s > check_s:
                check_s *= 2
                self._check()
            self._progress.show(total - left, "ended", of=total, failed=len(manifest.failures))

    def sum_up(self) -> None:
        """On stdout."""
        manifest = self._manifest
        summary = {
            "run_id": manifest.run_id,
            "manifest": str(manifest.path),
            "images": self._images,
            "submitted": self._submitted,
            "had_a_job": self._had_a_job,
            "succeeded": manifest.succeeded,
            "failed": len(manifest.failures),
            "not_ended": len(manifest.open),  # as far as was looked
            "failures": manifest.codes(),
        }
        self._progress.clear()
        if self._asked.as_json:
            print_json(summary)
        else:
            print_lines(*_lines(summary))

    def _manner(self) -> SubmitOptions:
        return SubmitOptions(
            batch=BatchMembership(batch_id=self._manifest.run_id, total=0),
            run_id=self._manifest.run_id,
            retry_of=self._failed_job,
            durable=self._asked.durable,
            room_timeout=self._asked.room_timeout,
        )

    def _failed_job(self, image: ImageSource) -> str:
        return self._manifest.failed_job(name_of(image))

    def _wanted(self, found: Iterable[Found]) -> Iterator[str]:
        for one in found:
            self._images += 1
            self._manifest.begin()
            if isinstance(one, Bad):
                self._manifest.refused(name_of(one.name), one.error)
            elif self._manifest.is_settled(name_of(one), self._asked.retry_failed):
                self._had_a_job += 1
            else:
                yield one
            self._show_submitted()

    def _look(self) -> int:
        """How many jobs ended since the last look; 0 while Redis is away for a moment."""
        ended = self._patiently(self._endings.look)
        self._looked = time.monotonic()
        self._note(ended or {})
        return len(ended or {})

    def _check(self) -> None:
        """Each job that is not known to have ended; from now on `_look` tells."""
        self._patiently(self._endings.skip)
        job_ids = iter(list(self._manifest.open))
        while some := list(islice(job_ids, CHUNK)):
            records = self._patiently(partial(records_of, some)) or {}
            self._note({i: r for i, r in records.items() if r is None or r.ended})

    def _patiently(self, flow: Callable[[], Flow[T]]) -> T | None:
        """None while Redis is away for a moment: what is missed, a later check finds."""
        try:
            answer: T = self._client.session.drive(flow())
        except StoreUnavailable as error:
            if self._outage_tolerance.ends_with(error):
                raise
            time.sleep(_OUTAGE_PAUSE_S)
            return None
        self._outage_tolerance.answered()
        return answer

    def _note(self, ended: Mapping[str, Any]) -> None:
        for job_id, record in ended.items():
            self._manifest.ended(job_id, record)
        self._manifest.flush()

    def _show_submitted(self, held_up: str = "") -> None:
        failed = len(self._manifest.failures)
        self._progress.show(self._submitted, "submitted", failed=failed, note=held_up)


def _connector(settings: Settings) -> Callable[[], Any]:
    return partial(s3.connect, settings.s3_endpoint_url, addressing=settings.s3_addressing)


def _lines(summary: Mapping[str, Any]) -> Iterator[str]:
    yield "{images} images: {submitted} submitted, {had_a_job} had a job already".format_map(
        summary
    )
    yield "{succeeded} succeeded, {failed} failed, {not_ended} have not ended".format_map(summary)
    for code, count in summary["failures"].items():
        yield f"  {count} {code}"
    if summary["failures"]:
        yield f"which and why: grep '\"code\"' {summary['manifest']}"
