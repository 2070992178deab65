"""maskq submit: one image, several, or with --recursive any number."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from maskq.cli.jobs import Json
from maskq.cli.option_flags import options_of, with_job_flags
from maskq.cli.reporting.outcomes import SaveTo, check_folder, show, wait_for
from maskq.client.client import Client
from maskq.client.job import DEFAULT_WAIT_S, Job
from maskq.client.results.names import stem_of_image, told_apart
from maskq.errors import InvalidRequest
from maskq.inert import print_error
from maskq.telemetry.trace_export import exporting

STDIN = "-"


def register(app: typer.Typer) -> None:
    app.command()(submit)


@with_job_flags
def submit(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="Files, s3://bucket/key, URLs or - for stdin; with --recursive folders, "
            "s3://bucket/prefix/ or lists of images (a text file, or - for stdin).",
        ),
    ],
    *,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A key that was used before returns its job.")
    ] = None,
    durable: Annotated[
        bool, typer.Option("--durable", help="Return only when Redis has the job on disk.")
    ] = False,
    queue_full_timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds to wait while the queue is full; default: 0, with --recursive no limit."
        ),
    ] = None,
    room_timeout: Annotated[
        float | None, typer.Option(hidden=True, help="Former name of --queue-full-timeout.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Wait, and save the outputs in this folder: photo.mask.png of photo.jpg."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="With --out: replace files that have other content.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all jobs have ended.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            help=f"Seconds to wait for a job at most; default: {DEFAULT_WAIT_S:g}, with "
            f"--recursive no limit."
        ),
    ] = None,
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive", "-r", help="Submit every image in the sources; run again to resume."
        ),
    ] = False,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="File that --recursive writes, a JSON line for each image; default: "
            "maskq-SOURCE.jsonl."
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="With --recursive: submit again what failed or expired."
        ),
    ] = False,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Submit images and print the ids of their jobs.

    --recursive submits every image below s3://bucket/prefix/, in a folder or in a list (one a line).
    It appends the outcome of each to the manifest. Run the same command again to resume. It exits with
    0 only if no image failed.
    """
    options = options_of(flags)
    if room_timeout is not None:
        print_error("maskq: --room-timeout is now called --queue-full-timeout")
        queue_full_timeout = room_timeout if queue_full_timeout is None else queue_full_timeout
    if idempotency_key and (recursive or len(images) > 1):
        raise InvalidRequest("--idempotency-key names one job; submit one image with it")
    if overwrite and not out:
        raise InvalidRequest("--overwrite goes with --out")
    if recursive:
        if out:
            raise InvalidRequest(
                "--out does not go with --recursive: save the results of a run with "
                "`maskq download --batch RUN_ID --out DIR`; --recursive prints the run's id"
            )
        from maskq.cli import bulk

        run_flags = bulk.RunFlags(
            manifest=manifest,
            retry_failed=retry_failed,
            durable=durable,
            queue_full_timeout=queue_full_timeout,
            wait=wait,
            timeout=timeout,
            as_json=as_json,
        )
        with exporting("maskq"), Client.from_env() as client:
            bulk.submit_recursive(client, images, options, run_flags)
        return
    if manifest or retry_failed:
        raise InvalidRequest("--manifest and --retry-failed go with --recursive")
    _refuse_folders(images)
    if out:
        check_folder(out)
    sources = _opened(images)
    with exporting("maskq"), Client.from_env() as client:
        if len(sources) == 1:
            job = client.submit(
                sources[0],
                idempotency_key=idempotency_key,
                durable=durable,
                queue_full_timeout=queue_full_timeout or 0.0,
                **options,
            )
            jobs = [job]
        else:
            batch = client.submit_many(
                sources, durable=durable, queue_full_timeout=queue_full_timeout or 0.0, **options
            )
            jobs = batch.jobs
        save_to = SaveTo(out, overwrite, _stems(jobs, images)) if out else None
        if wait or save_to:
            wait_for(jobs, DEFAULT_WAIT_S if timeout is None else timeout, as_json, save_to)
        else:
            show([job.id for job in jobs], as_json)


def _opened(images: Sequence[str]) -> list[str | bytes]:
    """The images, with the bytes of stdin in place of `-`."""
    if images.count(STDIN) > 1:
        raise InvalidRequest("- is given more than once; stdin holds one image")
    return [sys.stdin.buffer.read() if image == STDIN else image for image in images]


def _stems(jobs: Sequence[Job], images: Sequence[str]) -> dict[str, str]:
    """The first part of the names of each job's files."""
    stems = ("stdin" if image == STDIN else stem_of_image(image) for image in images)
    return told_apart({job.id: stem or job.id for job, stem in zip(jobs, stems, strict=True)})


def _refuse_folders(images: list[str]) -> None:
    for image in images:
        is_folder = image.startswith("s3://") and image.endswith("/")
        with suppress(OSError):  # who reads it says why it cannot be
            is_folder = is_folder or Path(image).is_dir()
        if is_folder:
            raise InvalidRequest(f"{image} is a folder; --recursive submits the images in it")
