"""The commands `maskq shadow mirror` and `maskq shadow report`."""

from __future__ import annotations

from typing import Annotated

import typer

from maskq.cli.comparison.findings import lines_of
from maskq.cli.jobs import Json
from maskq.cli.reporting.tables import aligned
from maskq.cli.shadow.mirror import Mirror
from maskq.cli.shadow.report import compared, document_of
from maskq.cli.shadow.target import ShadowTarget, shadow_settings
from maskq.client.client import Client
from maskq.inert import log_to_stderr, print_json, print_lines
from maskq.settings import Settings

app = typer.Typer(help="Run a share of the jobs again with another checkpoint; compare the masks.")


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="shadow")


@app.command()
def mirror(
    since: Annotated[
        str | None,
        typer.Option(help="event to begin after, the first time; 0: all; default: new events only"),
    ] = None,
    idle: Annotated[
        float | None, typer.Option(help="end after so many seconds without a job; default: never")
    ] = None,
) -> None:
    """Submit a share of the succeeded jobs again, to the workers of the shadow deployment.

    MASKQ_SHADOW_MODEL=NAME:SHARE names the model and the share. The workers of that model run with
    MASKQ_KEY_PREFIX and MASKQ_OUTPUT_PREFIX that end in -shadow (docs/shadow.md).
    """
    settings = Settings.load()
    target = ShadowTarget.of(settings)
    log_to_stderr("INFO")
    with Client(settings) as source, Client(shadow_settings(settings)) as shadow:
        count = Mirror(source, shadow, target).follow(since=since, idle=idle)
    print_lines(f"{count} jobs submitted again with {target.model}")


@app.command()
def report(
    limit: Annotated[int, typer.Option(min=1, help="jobs to compare, the latest first")] = 200,
    worst: Annotated[int, typer.Option(min=0, help="jobs to name that differ most")] = 5,
    as_json: Json = False,
) -> None:
    """Compare the masks of the second runs with those of the jobs."""
    settings = Settings.load()
    with Client(settings) as source, Client(shadow_settings(settings)) as shadow:
        document = document_of(compared(source, shadow, limit), worst)
    if as_json:
        print_json(document)
        return
    jobs = [(one["job_id"], f"{one['differing_share']:.4%}") for one in document["worst_jobs"]]
    lines = [f"  {line}" for line in aligned(("JOB", "PIXELS"), jobs)]
    print_lines(*lines_of(document, what="jobs", count=document["jobs"], worst=lines))
