"""The pages of the command line: commands, exit codes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from tools.reference.docstrings import Undescribed
from tools.reference.markdown import code, page, table

from maskq.cli import build

ROOT = Path(__file__).parents[2]
# Constants of the code are called EX_… or EXIT_…; the others come from Click and the shell.
_ALWAYS = {
    0: "The command did what it was asked for.",
    1: "It failed, or a job that it waited for did not succeed. One line on stderr says why.",
    2: "The arguments are wrong.",
    130: "Ctrl-C.",
}
_BY_NAME = {
    "EX_SOFTWARE": (
        70,
        "A worker process met a stuck forward, a dead model thread or a lost GPU. "
        "The supervisor starts the next.",
    ),
    "EX_CONFIG": (
        78,
        "A setting is wrong, or a service lacks or refuses what is needed. "
        "Starting again will not help; the line on stderr says what will.",
    ),
    "EXIT_NOT_FOUND": (127, "The program to start was not found."),
    "EXIT_ORPHAN": (143, "SIGTERM, or the death of the parent process."),
}


def commands() -> str:
    root = typer.main.get_command(build())
    parts = [
        "`maskq COMMAND --help` prints the same. Commands read the [settings](settings.md) and "
        "end with an [exit code](exit-codes.md). The extras `worker`, `gateway` and `standalone` "
        "add their commands."
    ]
    for path, command in _leaves("maskq", root):
        parts += [f"## {path}", inspect.cleandoc(command.help or "")]
        if rows := [*_parameters(command)]:
            parts.append(table(("argument", "default", ""), rows))
    return page("Commands", *parts)


def _leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", {})
    for name, one in inner.items():
        yield from _leaves(f"{path} {name}", one)
    if not inner or command.invoke_without_command:
        yield path, command


def _parameters(command: Any) -> Iterator[tuple[str, ...]]:
    for one in command.params:
        if one.param_type_name == "argument":
            names = [(one.metavar or one.name or "").upper()]
        else:
            names = [*one.opts, *one.secondary_opts]
        if not one.help:
            raise Undescribed(
                f"{command.name} {names[0]} has no help: write it where it is declared"
            )
        default = "required" if one.required else code(_default(one.default))
        yield " ".join(map(code, names)), default, one.help


def _default(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    return "" if value is None or value is False or value == [] or callable(value) else str(value)


def exit_codes() -> str:
    named = set(constants())
    if missing := named - set(_BY_NAME):
        raise Undescribed(f"describe {', '.join(sorted(missing))} in {__file__}")
    rows = _ALWAYS | dict(_BY_NAME[name] for name in named)
    return page(
        "Exit codes",
        "Service managers need not restart a process that ended with 78.",
        table(("code", ""), ((str(number), rows[number]) for number in sorted(rows))),
    )


def constants() -> Iterator[str]:
    """Names of exit codes in the four packages."""
    for path in ROOT.glob("*/maskq*/**/*.py"):
        yield from re.findall(r"^(EX(?:IT)?_\w+).* = ", path.read_text("utf-8"), re.MULTILINE)
