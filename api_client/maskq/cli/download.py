"""maskq download: save the outputs of jobs to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskq.cli.jobs import Json, Timeout
from maskq.cli.reporting.outcomes import SaveTo, check_folder, wait_for
from maskq.client.client import Client
from maskq.client.job import DEFAULT_WAIT_S, Job
from maskq.client.results.names import stem_of, told_apart
from maskq.errors import InvalidRequest

Out = Annotated[Path, typer.Option("--out", help="folder for the files; made if missing")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="replace files that have other content")
]


def register(app: typer.Typer) -> None:
    app.command()(download)


def download(
    out: Out,
    job_ids: Annotated[list[str] | None, typer.Argument(help="as `submit` printed them")] = None,
    batch: Annotated[
        str | None, typer.Option(help="all jobs of this batch, or of a run of `submit --recursive`")
    ] = None,
    overwrite: Overwrite = False,
    timeout: Timeout = DEFAULT_WAIT_S,
    as_json: Json = False,
) -> None:
    """Save the outputs of jobs as files and print their paths; waits for jobs that have not ended.

    A file is named after the job's image: photo.mask.png. If several jobs have images of one name,
    their files also have the jobs' ids.
    """
    if bool(job_ids) == bool(batch):
        raise InvalidRequest("give job ids or --batch, and only one of them")
    check_folder(out)
    with Client.from_env() as client:
        jobs = _of_batch(client, batch) if batch else _by_id(client, job_ids or [])
        stems = {job.id: stem_of(job.record) for job in jobs if job.record}
        wait_for(jobs, timeout, as_json, SaveTo(out, overwrite, told_apart(stems)))


def _by_id(client: Client, job_ids: list[str]) -> list[Job]:
    jobs = {job.id: job for job in map(client.get, dict.fromkeys(job_ids))}
    return list(jobs.values())


def _of_batch(client: Client, batch_id: str) -> list[Job]:
    session = client.session
    jobs = [Job(session, one, one.id) for one in client.list_all(batch_id=batch_id)]
    if not jobs:
        raise InvalidRequest(f"there are no jobs of batch {batch_id}")
    return jobs
