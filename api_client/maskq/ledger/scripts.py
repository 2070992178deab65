"""The transitions as Lua scripts of the folder lua: the prelude, what they share, the script."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

from maskq.ledger.prelude import prelude

A = TypeVar("A")

_SCRIPTS: Final = Path(__file__).parent / "lua"
# What scripts share, in this order: a later one uses the earlier ones.
SHARED: Final = (
    "common", "shares", "queue", "waiting_counts", "pace", "queue_place", "counters", "ending",
)  # fmt: skip
# At its memory limit Redis refuses scripts without this flag. Only new jobs may be refused: running
# jobs must be able to end.
_ALLOWED_WHEN_FULL: Final = "#!lua flags=allow-oom\n"
_REFUSED_WHEN_FULL: Final = "#!lua\n"
# The line of a script that names its arguments; ARGV[1] is the deployment's prefix.
_ARGUMENTS: Final = re.compile(r"^local ([\w,\s]+?)\s*= unpack\(ARGV, 2", re.MULTILINE)

_DEFINED: Final = re.compile(r"^local (?:function )?(\w+)", re.MULTILINE)
_NAME: Final = re.compile(r"\w+")
_COMMENT: Final = re.compile(r"--.*")


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script; `arguments` are the names of ARGV from the second on."""

    name: str
    text: str = field(repr=False)
    sha: str
    arguments: tuple[str, ...] = ()

    def in_order(self, given: Mapping[str, A]) -> tuple[A, ...]:
        """The values of named arguments as the script reads them. Raises TypeError for other names."""
        values = tuple([given[name] for name in self.arguments if name in given])
        if not len(values) == len(given) == len(self.arguments):
            raise TypeError(f"{self.name}.lua takes {self.arguments}, not {tuple(given)}")
        return values


@cache
def script(name: str) -> Script:
    """The script `lua/NAME.lua`, ready to be sent."""
    head = _REFUSED_WHEN_FULL if name == "submit" else _ALLOWED_WHEN_FULL
    own = _read(name)
    body = _needed(shared_text(), own) + own
    text = head + prelude(body) + body
    found = _ARGUMENTS.search(own)
    arguments = tuple(re.findall(r"\w+", found[1])) if found else ()
    return Script(
        name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), arguments
    )


@cache
def shared_text() -> str:
    """All that scripts share."""
    return "\n".join(map(_read, SHARED))


def _needed(shared: str, own: str) -> str:
    """The shared paragraphs that a script uses, directly or through others: each costs time."""
    needed, code = "", _without_comments(own)
    for paragraph in reversed(shared.split("\n\n")):
        if {*_DEFINED.findall(paragraph)} & {*_NAME.findall(code)}:
            needed = f"{paragraph}\n\n{needed}"
            code += _without_comments(paragraph)
    return needed


def _without_comments(text: str) -> str:
    return _COMMENT.sub("", text)


def _read(name: str) -> str:
    return (_SCRIPTS / f"{name}.lua").read_text(encoding="utf-8")
