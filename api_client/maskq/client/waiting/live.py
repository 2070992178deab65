"""Progress that a notebook shows and updates while a cell runs."""

from __future__ import annotations

import sys
from html import escape
from importlib import import_module
from typing import Any

from maskq.inert import printable
from maskq.ledger.calls import BatchProgress


def in_notebook() -> bool:
    """Whether this code runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


class BatchBar:
    """A bar in the output of the cell, which each call updates."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._shown: Any = None

    def __call__(self, progress: BatchProgress) -> None:
        notebook: Any = import_module("IPython.display")
        document = notebook.HTML(bar(self._title, progress))
        if self._shown is None:
            self._shown = notebook.display(document, display_id=True)
        else:
            self._shown.update(document)


def bar(title: str, progress: BatchProgress) -> str:
    """A batch's progress as HTML."""
    counts = ", ".join(f"{count} {status.value}" for status, count in progress.counts.items())
    text = f"{title}: {progress.finished} of {progress.total} ended"
    text += f" ({counts})" if counts else ""
    return (
        f'<progress max="{max(progress.total, 1)}" value="{progress.finished}" '
        f'style="width:16em"></progress> {escape(printable(text))}'
    )
