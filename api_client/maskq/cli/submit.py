"""maskq submit: one image, several, or with --recursive any number."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from maskq.cli.jobs import Json, wait_for
from maskq.client.client import Client
from maskq.client.job import DEFAULT_WAIT_S
from maskq.client.requests import Options
from maskq.errors import InvalidRequest
from maskq.inert import print_error, print_json, print_lines


def register(app: typer.Typer) -> None:
    app.command()(submit)


def submit(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="files, s3://bucket/key or URLs; with --recursive folders, s3://bucket/prefix/, "
            "lists of images (a text file, or - for stdin)",
        ),
    ],
    output: Annotated[
        list[str] | None,
        typer.Option(help="mask, overlay, stats, logits, confidence, rle, binary; may be repeated"),
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="only this label or id; may be repeated")
    ] = None,
    overlay_alpha: Annotated[
        float | None, typer.Option(help="how much of the overlay is colour, 0 to 1")
    ] = None,
    legend: Annotated[
        bool, typer.Option("--legend", help="labels and shares below the overlay")
    ] = False,
    model: Annotated[str | None, typer.Option(help="one of those served")] = None,
    mode: Annotated[str, typer.Option(help="whole, aspect, multiscale or tiled")] = "whole",
    priority: Annotated[str, typer.Option(help="high, normal or low")] = "normal",
    tenant: Annotated[str | None, typer.Option(help="whose job: tenants take turns")] = None,
    queue_ttl: Annotated[float | None, typer.Option(help="seconds in which it must start")] = None,
    run_timeout: Annotated[float | None, typer.Option(help="seconds it may run")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="attempts that may be charged")] = None,
    output_prefix: Annotated[str | None, typer.Option(help="s3://bucket/prefix")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="the same key: the same job")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be repeated")] = None,
    durable: Annotated[
        bool, typer.Option("--durable", help="only once Redis has it on disk")
    ] = False,
    queue_full_timeout: Annotated[
        float | None,
        typer.Option(
            help="seconds to wait while the queue is full; default: 0, with --recursive no limit"
        ),
    ] = None,
    room_timeout: Annotated[
        float | None, typer.Option(hidden=True, help="former name of --queue-full-timeout")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="until all have ended")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            help=f"seconds to wait for a job at most; left out: {DEFAULT_WAIT_S:g}, with "
            f"--recursive no limit"
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="every image in there; run again to go on")
    ] = False,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="where --recursive writes what becomes of each image, one JSON line each; left "
            "out: maskq-SOURCE.jsonl"
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="with --recursive: what failed or expired, once more"),
    ] = False,
    as_json: Json = False,
) -> None:
    """Submit images; prints the ids of their jobs.

    With --recursive every image below s3://bucket/prefix/, in a folder, or named in a list, one a line.
    What becomes of each is appended to the manifest. The same command goes on where the last one
    stopped; exit 0 only if none failed.
    """
    options: Options = {
        "outputs": frozenset(output or ["mask"]),
        "classes": frozenset(classes) if classes else None,
        "overlay_alpha": overlay_alpha,
        "overlay_legend": legend,
        "model": model,
        "mode": mode,
        "priority": priority,
        "tenant": tenant,
        "queue_ttl": queue_ttl,
        "run_timeout": run_timeout,
        "max_attempts": max_attempts,
        "output_prefix": output_prefix,
        "metadata": dict(_pair(entry) for entry in metadata or []),
    }
    if room_timeout is not None:
        print_error("maskq: --room-timeout is now called --queue-full-timeout")
        queue_full_timeout = room_timeout if queue_full_timeout is None else queue_full_timeout
    if idempotency_key and (recursive or len(images) > 1):
        raise InvalidRequest("--idempotency-key names one job; submit one image with it")
    if recursive:
        from maskq.cli import bulk

        asked = bulk.Asked(
            manifest=manifest,
            retry_failed=retry_failed,
            durable=durable,
            queue_full_timeout=queue_full_timeout,
            wait=wait,
            timeout=timeout,
            as_json=as_json,
        )
        with Client.from_env() as client:
            bulk.submit_recursive(client, images, options, asked)
        return
    if manifest or retry_failed:
        raise InvalidRequest("--manifest and --retry-failed go with --recursive")
    _refuse_folders(images)
    queue_full_s = queue_full_timeout or 0.0
    with Client.from_env() as client:
        if len(images) == 1:
            job = client.submit(
                images[0],
                idempotency_key=idempotency_key,
                durable=durable,
                queue_full_timeout=queue_full_s,
                **options,
            )
            jobs = [job]
        else:
            batch = client.submit_many(
                images, durable=durable, queue_full_timeout=queue_full_s, **options
            )
            jobs = batch.jobs
        if wait:
            wait_for(jobs, DEFAULT_WAIT_S if timeout is None else timeout, as_json)
        elif as_json:
            print_json([{"id": job.id} for job in jobs])
        else:
            print_lines(*(job.id for job in jobs))


def _refuse_folders(images: list[str]) -> None:
    for image in images:
        is_folder = image.startswith("s3://") and image.endswith("/")
        with suppress(OSError):  # who reads it says why it cannot be
            is_folder = is_folder or Path(image).is_dir()
        if is_folder:
            raise InvalidRequest(f"{image} is a folder; --recursive submits the images in it")


def _pair(entry: str) -> tuple[str, str]:
    name, equals, value = entry.partition("=")
    if not equals:
        raise InvalidRequest(f"--metadata {entry!r} is not NAME=VALUE")
    return name, value
