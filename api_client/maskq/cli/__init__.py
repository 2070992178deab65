"""The command `maskq`. Worker and stack add their own commands where they are installed."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer

from maskq.cli import bench, jobs, models, submit, view, webhooks
from maskq.errors import MaskqError

COMMANDS = "maskq.commands"  # entry points: a function that takes the app and adds to it


def build() -> typer.Typer:
    """The whole command line, as installed here."""
    app = typer.Typer(
        name="maskq",
        help="Images segmented behind a queue.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    submit.register(app)
    jobs.register(app)
    models.register(app)
    webhooks.register(app)
    view.register(app)
    bench.register(app)
    for entry in sorted(entry_points(group=COMMANDS), key=lambda entry: entry.name):
        entry.load()(app)
    return app


def main() -> None:
    """Exit 0 only when what was asked for was done; every error is one line."""
    try:
        build()()
    except MaskqError as error:
        print(f"maskq: {error}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        print(
            f"maskq: {error.name} is not installed here; install maskq[worker] to serve a model, "
            f"maskq[gateway] to take notifications, maskq[standalone] for the one-machine stack",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
