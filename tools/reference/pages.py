"""Every page, by its file name in docs/reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tools.reference.commands import commands, exit_codes
from tools.reference.contract import errors, events, outputs
from tools.reference.metrics import metrics
from tools.reference.options import page as options
from tools.reference.settings import settings

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "settings.md": settings,
    "options.md": options,
    "outputs.md": outputs,
    "errors.md": errors,
    "events.md": events,
    "metrics.md": metrics,
    "commands.md": commands,
    "exit-codes.md": exit_codes,
}
