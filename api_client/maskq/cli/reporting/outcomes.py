"""Waiting for jobs on the command line, saving their results, and printing their outcomes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer

from maskq.cli.reporting.progress import Progress
from maskq.cli.reporting.tables import job_table
from maskq.client.job import Job
from maskq.client.results.result import Result
from maskq.contract import JobRecord
from maskq.errors import InvalidRequest, JobFailed, JobNotFound, MaskqError, WaitTimeout
from maskq.inert import print_json, print_lines

_SAVED_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class SaveTo:
    """The folder that results are saved to."""

    folder: Path
    overwrite: bool
    stems: Mapping[str, str]  # job id → the first part of its files' names

    def save(self, result: Result) -> list[Path]:
        """Save one result. Raises MaskqError."""
        stem = self.stems.get(result.job_id)
        return result.save(self.folder, name=stem, overwrite=self.overwrite)


def check_folder(folder: Path) -> None:
    """Make the folder that results are saved to. Raises InvalidRequest if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(f"cannot write to {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidRequest(f"cannot write to {folder}: Permission denied")


def wait_for(
    jobs: Sequence[Job], timeout: float, as_json: bool, save_to: SaveTo | None = None
) -> None:
    """Wait for all jobs, at most `timeout` seconds in total, save their results and print them.

    Raises typer.Exit(1) unless all succeeded and were saved.
    """
    end = time.monotonic() + timeout
    files: dict[str, list[Path]] = {}
    failed = 0
    with ThreadPoolExecutor(_SAVED_AT_ONCE) as pool, Progress(bar_only=True) as progress:
        try:
            saving: dict[str, Future[list[Path]]] = {}
            for number, job in enumerate(jobs):
                progress.show(number, "ended", of=len(jobs), failed=failed)
                try:
                    result = _result_of(job, end)
                    if save_to:
                        saving[job.id] = pool.submit(save_to.save, result)
                except (JobFailed, JobNotFound, WaitTimeout) as error:
                    failed += 1
                    progress.say(str(error))
            progress.begin()
            for number, (job_id, future) in enumerate(saving.items()):
                progress.show(number, "saved", of=len(saving), failed=failed)
                try:
                    files[job_id] = future.result()
                except MaskqError as error:
                    failed += 1
                    progress.say(f"job {job_id} was not saved: {error}")
        finally:  # print the jobs, also after an error: the caller needs their ids
            pool.shutdown(cancel_futures=True)
            progress.clear()
            show([job.record or job.id for job in jobs], as_json, files if save_to else None)
    if failed:
        raise typer.Exit(1)


def show(
    records: Sequence[JobRecord | str],
    as_json: bool,
    files: Mapping[str, Sequence[Path]] | None = None,
) -> None:
    """Print jobs: as JSON, as the paths of their saved files, or as a table.

    records: job records, or the ids of jobs without a record yet.
    """
    if as_json:
        print_json({"jobs": [_document(one, files) for one in records]})
    elif files is not None:
        print_lines(*(path for paths in files.values() for path in paths))
    else:
        print_lines(*(one for one in records if isinstance(one, str)))
        print_lines(*job_table(one for one in records if not isinstance(one, str)))


def _result_of(job: Job, end: float) -> Result:
    if job.record and job.record.ended:
        return job.result()
    return job.wait(max(0.0, end - time.monotonic()))


def _document(
    record: JobRecord | str, files: Mapping[str, Sequence[Path]] | None
) -> dict[str, Any]:
    document = {"id": record} if isinstance(record, str) else record.public()
    saved = None if files is None else [str(path) for path in files.get(document["id"], ())]
    return document if saved is None else document | {"files": saved}
