"""The commands status, wait, cancel, retry, delete, list and events.

`--json` prints one JSON object on stdout (`events`: one a line), with jobs under `jobs`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from maskq.cli.durations import moment, seconds
from maskq.cli.reporting.outcomes import show, wait_for
from maskq.cli.reporting.progress import Progress
from maskq.client.client import Client
from maskq.client.job import DEFAULT_WAIT_S
from maskq.contract import FailureCode, JobStatus
from maskq.errors import InvalidRequest, JobNotFound, MaskqError, StoreUnavailable
from maskq.inert import print_error, print_json, print_lines, printable
from maskq.telemetry.trace_export import exporting

Json = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]
Timeout = Annotated[float, typer.Option(help="seconds to wait")]
JobId = Annotated[str, typer.Argument(help="as `submit` printed it")]


def register(app: typer.Typer) -> None:
    for command in (status, wait, cancel, retry, delete, list_jobs, events):
        app.command("list" if command is list_jobs else command.__name__)(command)


def status(job_id: JobId, as_json: Json = False) -> None:
    """Show a job's status, outputs and error."""
    with Client.from_env() as client:
        show([client.get(job_id).refresh()], as_json)


def wait(
    job_ids: Annotated[list[str], typer.Argument(help="as `submit` printed them")],
    timeout: Timeout = DEFAULT_WAIT_S,
    as_json: Json = False,
) -> None:
    """Wait until jobs have ended; exit 0 only if all succeeded."""
    with Client.from_env() as client:
        wait_for([client.get(job_id) for job_id in job_ids], timeout, as_json)


def cancel(job_id: JobId) -> None:
    """Cancel a job, queued or running; exit 1 if it has already ended."""
    with Client.from_env() as client:
        job = client.get(job_id)
        if not job.cancel():
            raise MaskqError(f"job {job_id} has already ended: {job.status.value}")
        print_lines(f"{job_id} canceled")


def retry(
    job_ids: Annotated[list[str] | None, typer.Argument(help="as `list` shows them")] = None,
    code: Annotated[
        str | None, typer.Option(help="retry all jobs that failed or expired with this code")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="retry all failed jobs")] = False,
    as_json: Json = False,
) -> None:
    """Retry jobs that failed, expired or were canceled; prints the ids of the new jobs.

    Retrying a job again prints the same new job. To retry that one, give its id.
    """
    if bool(job_ids) + bool(code) + every != 1:
        raise InvalidRequest("give job ids, --code or --all, and only one of them")
    with exporting("maskq"), Client.from_env() as client:
        chosen = job_ids or _unsuccessful(client, code)
        pairs: dict[str, str] = {}
        progress = Progress(bar_only=True)
        try:
            for number, job_id in enumerate(chosen):
                progress.show(number, "retried", of=len(chosen), failed=number - len(pairs))
                new = _retried(client, job_id, progress)
                if not new:
                    continue
                pairs[job_id] = new
                if not as_json:
                    progress.clear()
                    print_lines(f"{new}  retry of {job_id}")
        finally:  # print the new jobs, also after an error
            progress.clear()
            if as_json:
                jobs = [{"id": new, "retry_of": old} for old, new in pairs.items()]
                print_json({"jobs": jobs})
    if len(pairs) < len(set(chosen)):
        raise typer.Exit(1)


def delete(
    job_ids: Annotated[list[str] | None, typer.Argument(help="as `submit` printed them")] = None,
    tenant: Annotated[str | None, typer.Option(help="delete all jobs of this tenant")] = None,
    older_than: Annotated[
        str | None, typer.Option(help="with --tenant: jobs of at least this age: 30d, 12h or 0s")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="with --tenant: one JSON document")
    ] = False,
) -> None:
    """Delete jobs with their outputs and uploaded images; jobs that have not ended are canceled.

    With --tenant also delete objects in the tenant's folder whose jobs have no record. Prints how many
    jobs and objects remain.
    """
    if bool(job_ids) == bool(tenant) or bool(tenant) != bool(older_than):
        raise InvalidRequest("give job ids, or --tenant with --older-than")
    with Client.from_env() as client:
        if tenant and older_than:
            _delete_tenant(client, tenant, seconds(older_than), as_json)
        with Progress(bar_only=True) as progress:
            for number, job_id in enumerate(job_ids or ()):
                progress.show(number, "deleted", of=len(job_ids or ()))
                client.delete(job_id)
                progress.clear()
                print_lines(f"{job_id} deleted")


def _delete_tenant(client: Client, tenant: str, older_than_s: float, as_json: bool) -> None:
    with Progress(bar_only=True) as progress:
        erased = client.delete_tenant(
            tenant,
            older_than=older_than_s,
            on_progress=lambda deleted: progress.show(deleted, "jobs deleted"),
        )
    if as_json:
        print_json(asdict(erased))
    else:
        print_lines(
            f"deleted of tenant {tenant}: {erased.jobs} jobs, and {erased.objects} objects of jobs "
            f"without a record",
            f"remaining: {erased.jobs_left} jobs, {erased.objects_left} objects in its folder",
        )
    for job_id, reason in erased.refused.items():
        print_error(f"maskq: job {job_id} was not deleted: {reason}")
    if erased.refused:
        raise typer.Exit(1)


def list_jobs(
    status: Annotated[str | None, typer.Option(help="queued, running, succeeded, …")] = None,
    code: Annotated[str | None, typer.Option(help="failed with this code")] = None,
    model: Annotated[str | None, typer.Option(help="the model's served name")] = None,
    tenant: Annotated[str | None, typer.Option(help="of this tenant")] = None,
    batch: Annotated[str | None, typer.Option(help="of this batch")] = None,
    source: Annotated[
        str | None,
        typer.Option(help="of this image: s3://bucket/key, URL, or file name as it was given"),
    ] = None,
    ended_since: Annotated[
        str | None,
        typer.Option(
            help="ended since then, in the order of ending: 2h (ago), or an ISO 8601 time"
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="at most so many")] = 20,
    cursor: Annotated[str, typer.Option(help="printed by the previous page")] = "",
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    ended_since_s = None if ended_since is None else moment(ended_since)
    with Client.from_env() as client:
        page = client.list(
            status=status,
            code=code,
            model=model,
            tenant=tenant,
            batch_id=batch,
            source=source,
            ended_since=ended_since_s,
            limit=limit,
            cursor=cursor,
        )
    if as_json:
        print_json({"jobs": [r.public() for r in page.records], "cursor": page.cursor})
        return
    show(page.records, as_json)
    if page.cursor:
        print_error(f"more: --cursor {page.cursor}")


def events(
    since: Annotated[
        str | None,
        typer.Option(help="a cursor, or 0 for all kept events; default: new events only"),
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="job.succeeded, …; may be repeated")
    ] = None,
    jobs: Annotated[
        list[str] | None, typer.Option("--job", help="of this job; may be repeated")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="share events with the other readers of this group")
    ] = None,
    delete_group: Annotated[
        bool, typer.Option("--delete-group", help="delete the group instead of reading")
    ] = False,
    idle: Annotated[
        float | None, typer.Option(help="end after so many seconds without an event")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one CloudEvent a line")] = False,
) -> None:
    """Print events as they arrive."""
    if delete_group and not group:
        raise InvalidRequest("--delete-group needs --group")
    with Client.from_env() as client:
        if delete_group and group:
            existed = client.delete_event_group(group)
            print_lines(f"group {printable(group)} " + ("deleted" if existed else "did not exist"))
            return
        for event in client.events(since=since, types=types, job_ids=jobs, idle=idle, group=group):
            if as_json:
                print_json(event.model_dump(mode="json"))
            else:
                print_lines(
                    f"{event.cursor}  {event.time:%Y-%m-%d %H:%M:%S}  {event.type}  {event.subject}"
                )


def _unsuccessful(client: Client, code: str | None) -> list[str]:
    """Ids of the jobs that ended with this code; None: of those that failed with any."""
    if code is None:
        return [record.id for record in client.list_all(status=JobStatus.FAILED)]
    found = client.list_all(code=code)  # among them queued jobs whose last attempt had the code
    ended = (JobStatus.FAILED, JobStatus.EXPIRED)
    return [record.id for record in found if record.status in ended]


def _retried(client: Client, job_id: str, progress: Progress) -> str | None:
    """The new job's id; None after printing why the job cannot be retried."""
    try:
        return client.retry(job_id).id
    except StoreUnavailable as error:
        if error.code not in (FailureCode.NOT_FOUND, FailureCode.STORE_REFUSED):
            raise
        reason = f"job {job_id}: its image cannot be copied ({error})"
    except (InvalidRequest, JobNotFound) as error:
        reason = str(error)
    progress.say(reason)
    return None
