"""The command `maskq verify`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from maskq.cli.jobs import Json
from maskq.cli.verify.checks import Check, check_file, check_outputs
from maskq.cli.verify.recomputation import image_of, recomputed
from maskq.cli.verify.results import Found, Results, StatedResult
from maskq.errors import InvalidRequest
from maskq.inert import print_json, print_lines


def register(app: typer.Typer) -> None:
    app.command()(verify)


def verify(
    result: Annotated[
        str,
        typer.Argument(
            metavar="RESULT",
            help="a job id, a result.json (file or s3://…), or one output: mask.png or s3://…/mask.png",
        ),
    ],
    of: Annotated[
        str | None,
        typer.Option(
            "--result",
            metavar="RESULT",
            help="for one output: its job id or result.json; default: the file result.json beside it, "
            "or the job that the object's metadata names",
        ),
    ] = None,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute",
            help="segment the image again, with the model of this machine's MASKQ_ variables",
        ),
    ] = False,
    image: Annotated[
        Path | None,
        typer.Option(help="with --recompute: the image; default: read it where the job read it"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare outputs with the SHA-256 digests in result.json; exit 1 if one differs or is missing.

    With --recompute the same image, weights and options are run again, and the new bytes compared.
    """
    if image and not recompute:
        raise InvalidRequest("--image goes with --recompute")
    with Results() as results:
        found = results.find(result, of)
        if recompute:
            body = image.read_bytes() if image else image_of(found.stated, results)
            checks = recomputed(found.stated, body, found.digest)
        else:
            checks = _compared(found)
    _report(found.stated, checks, as_json)


def _compared(found: Found) -> Sequence[Check]:
    if found.body is None:
        return check_outputs(found.stated)
    return [check_file(found.stated, found.place, hashlib.sha256(found.body).hexdigest())]


def _report(stated: StatedResult, checks: Sequence[Check], as_json: bool) -> None:
    """Print the checks. Raises typer.Exit(1) unless an output was compared and none differs."""
    outcomes = [one.verified for one in checks]
    verified = False not in outcomes and True in outcomes
    if as_json:
        print_json(
            {
                "verified": verified,
                "result": stated.name,
                "job_id": stated.manifest.job_id,
                "source": stated.manifest.source,
                "checks": [one.document() for one in checks],
            }
        )
    else:
        print_lines(*(one.line() for one in checks))
    if not verified:
        raise typer.Exit(1)
