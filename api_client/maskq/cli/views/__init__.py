"""Views of a deployment: maskq workers, maskq top, maskq info."""

import typer

from maskq.cli.views import info, top, workers


def register(app: typer.Typer) -> None:
    workers.register(app)
    top.register(app)
    info.register(app)
