"""maskq top: queues, workers and failures, live in a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Annotated, Final

import typer

from maskq.cli.views.keyboard import Keyboard
from maskq.cli.views.screen import Screen, plain
from maskq.cli.views.snapshot import Snapshot
from maskq.client.client import Client
from maskq.errors import MaskqError
from maskq.inert import print_lines

_WIDE: Final = 200  # of lines that no terminal shows
_FOOTER: Final = "q quits, r refreshes"


def register(app: typer.Typer) -> None:
    app.command("top")(top)


def top(
    interval: Annotated[float, typer.Option(min=0.2, max=3600, help="seconds between looks")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="show one table and end")] = False,
) -> None:
    """Show queues, workers and the latest failures, live; one table if stdout is not a terminal.

    q or Ctrl-C ends it.
    """
    with Client.from_env() as client:
        if once or not sys.stdout.isatty():
            is_terminal = sys.stdout.isatty()
            width = shutil.get_terminal_size().columns if is_terminal else _WIDE
            print_lines(*plain(Snapshot.take(client), width))
            return
        _live(client, interval)


def _live(client: Client, interval_s: float) -> None:
    from rich.console import Console
    from rich.live import Live

    snapshot, problem = Snapshot.take(client), ""
    console = Console(highlight=False)
    with Keyboard() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(Screen(snapshot, footer=_FOOTER, problem=problem), refresh=True)
            if _is_quit(keyboard, interval_s):
                return
            try:
                snapshot, problem = Snapshot.take(client), ""
            except MaskqError as error:
                problem = str(error)


def _is_quit(keyboard: Keyboard, interval_s: float) -> bool:
    """Wait for the next look, or for a key. Returns whether the key ends the view."""
    end = time.monotonic() + interval_s
    while (left_s := end - time.monotonic()) > 0:
        match keyboard.key(left_s):
            case "q" | "Q" | "\x04":
                return True
            case "r" | " ":
                return False
    return False
