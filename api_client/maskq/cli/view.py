"""maskq view: write a result as one self-contained HTML page."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskq.client.client import Client
from maskq.contract import Output
from maskq.contract.locations import S3Uri, is_url
from maskq.errors import InvalidRequest, MaskqError
from maskq.inert import print_lines

if TYPE_CHECKING:
    import PIL.Image

    from maskq.client.results.result import Result
    from maskq.contract import JobRecord
    from maskq.view import PageContent


def register(app: typer.Typer) -> None:
    app.command()(view)


def view(
    job_id: Annotated[str, typer.Argument(help="as `submit` printed it")],
    out: Annotated[
        Path | None, typer.Option(help="the file to write; default: maskq-JOB.html")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="open the page in the browser")] = False,
) -> None:
    """Write an HTML page of a result: image, mask, legend and job details."""
    from maskq.view import page

    with Client.from_env() as client:
        job = client.get(job_id)
        path = out or Path(f"maskq-{job.id}.html")
        record = job.refresh()
        text = page(_content(client, record, job.result()))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {error.strerror or error}") from error
    print_lines(path)
    if open_it:
        webbrowser.open(path.resolve().as_uri())


def _content(client: Client, record: JobRecord, result: Result) -> PageContent:
    from maskq.view import PageContent

    photo, notice = None, ""
    try:
        photo = _photo(client, record, result)
    except MaskqError as error:
        notice = f"The image could not be read, so the mask is shown alone: {error}"
    made = result.details.outputs.get(Output.CONFIDENCE)
    confidence = result.confidence() if made and not is_url(made) else None
    return PageContent(record, result.mask(), photo, confidence, notice)


def _photo(client: Client, record: JobRecord, result: Result) -> PIL.Image.Image:
    """Raises MaskqError if the image cannot be read any more."""
    from maskq.view import open_photo

    source = record.request.image_uri
    if is_url(source):
        raise InvalidRequest(f"the image was submitted by URL, {source}")
    return open_photo(client.objects.get(S3Uri.parse(source)), result.size)
