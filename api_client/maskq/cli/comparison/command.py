"""The command `maskq compare`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from maskq.cli.bulk.sources import images_of
from maskq.cli.comparison.findings import lines_of
from maskq.cli.comparison.pairs import Comparison
from maskq.cli.jobs import Json
from maskq.cli.reporting.progress import Progress
from maskq.cli.reporting.tables import aligned
from maskq.client.client import Client
from maskq.contract.options import Mode, Options, Priority
from maskq.errors import InvalidRequest
from maskq.inert import print_error, print_json, print_lines
from maskq.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(compare)


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="the name of a served model")],
    second: Annotated[str, typer.Argument(metavar="B", help="the name of another one")],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES",
            help="folders, s3://bucket/prefix/, images, or lists of images (a text file, or - for "
            "stdin)",
        ),
    ],
    mode: Annotated[Mode, typer.Option(help="how both models look at an image")] = Mode.WHOLE,
    priority: Annotated[Priority, typer.Option(help="of the jobs")] = Priority.LOW,
    worst: Annotated[int, typer.Option(min=0, help="images to name that differ most")] = 5,
    fail_above: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="exit with 1 if a larger share of the pixels differs, 0 to 1"
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="seconds to wait for a job; default: no limit")
    ] = None,
    as_json: Json = False,
) -> None:
    """Segment the same images with two models, and compare their masks pixel by pixel.

    Give two revisions of a model names of their own: MASKQ_MODEL_NAME of their workers. Exits with 1 if
    no image could be compared.
    """
    if first == second:
        raise InvalidRequest(
            f"A and B are the same model, {first}; give two names (`maskq models`)"
        )
    found = images_of(images, Settings.load())
    with Client.from_env() as client, Progress(quiet=as_json) as progress:
        options: Options = {"mode": mode, "priority": priority}
        comparison = Comparison(client, (first, second), options, timeout)
        comparison.run(found, progress.show)
    document = comparison.document()
    if as_json:
        print_json(document)
    else:
        print_lines(*_lines(document, worst))
    if not document["images"]:
        raise typer.Exit(1)
    if fail_above is not None and document["differing_share"] > fail_above:
        print_error(f"maskq: more than {fail_above:.4%} of the pixels differ")
        raise typer.Exit(1)


def _lines(document: dict[str, Any], worst: int) -> list[str]:
    named = [
        (f"{one['differing_share']:.4%}", *one["jobs"], one["image"])
        for one in document["each"][:worst]
    ]
    table = aligned(("PIXELS", "JOB OF A", "JOB OF B", "IMAGE"), named)
    lines = [f"  {line}" for line in table]
    return lines_of(document, what="images", count=document["images"], worst=lines)
