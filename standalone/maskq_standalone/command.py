"""`maskq up` and `maskq demo`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskq import environment
from maskq.extras import require

Model = Annotated[
    str | None,
    typer.Option(help="a hub id, a directory, or demo; default: MASKQ_MODEL, else demo"),
]


def register(app: typer.Typer) -> None:
    """Add this package's commands; the client's command line calls it where we are installed."""
    app.command()(up)
    app.command()(demo)


def up(
    workers: Annotated[int, typer.Option(min=0, help="worker processes")] = 1,
    model: Model = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="keeps the data; left out: a temporary one")
    ] = None,
    env_file: Annotated[
        Path | None, typer.Option(help="gets the MASKQ_ settings when all is ready")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="which uploads start which jobs (TOML)")
    ] = None,
) -> None:
    """Redis, an S3 server and workers on this machine, until SIGTERM or Ctrl-C."""
    require("standalone", "maskq up")
    from maskq_standalone.commands.up import run

    raise typer.Exit(
        run(
            directory=directory,
            workers=workers,
            model=_chosen(model),
            env_file=env_file,
            rules=rules,
        )
    )


def demo(
    photos: Annotated[list[Path] | None, typer.Argument(help="your own photographs")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=9999, help="draw other scenes; needs a checkout")
    ] = None,
    scenes: Annotated[
        int, typer.Option(min=1, max=1000, help="how many scenes; more than 8 need a checkout")
    ] = 8,
    model: Model = None,
    workers: Annotated[int, typer.Option(min=1, help="worker processes")] = 1,
    out: Annotated[Path, typer.Option(help="where the pictures go")] = Path("demo-output"),
) -> None:
    """The main job on an embedded Redis and S3: drawn scenes and photographs, segmented by a worker."""
    require("standalone", "maskq demo")
    from maskq_standalone.commands.demo_run import run

    raise typer.Exit(
        run(
            photos=photos or [],
            seed=seed,
            scenes=scenes,
            model=_chosen(model),
            workers=workers,
            out=out,
        )
    )


def _chosen(model: str | None) -> str:
    return model or environment.value("MASKQ_MODEL") or "demo"
