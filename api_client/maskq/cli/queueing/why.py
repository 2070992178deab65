"""maskq why: what a job waits for."""

from __future__ import annotations

import typer

from maskq.cli.jobs import JobId, Json
from maskq.client.client import Client
from maskq.inert import print_json, print_lines


def register(app: typer.Typer) -> None:
    app.command()(why)


def why(job_id: JobId, as_json: Json = False) -> None:
    """Say in one sentence what a job waits for."""
    with Client.from_env() as client:
        waiting = client.why(job_id)
    if as_json:
        print_json(waiting.model_dump(mode="json"))
        return
    print_lines(waiting.text)
