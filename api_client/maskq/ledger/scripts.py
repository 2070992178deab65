"""The transitions as Lua scripts: `common.lua` in front of each, loaded from the folder lua."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_SCRIPTS = Path(__file__).parent / "lua"
# At its memory limit Redis refuses scripts unless they say otherwise. Only a new job may be refused:
# what runs must be able to end, and what ended to be seen.
_ALLOWED_WHEN_FULL = "#!lua flags=allow-oom\n"
_REFUSED_WHEN_FULL = "#!lua\n"


@dataclass(frozen=True, slots=True)
class Script:
    name: str
    text: str = field(repr=False)
    sha: str


@cache
def script(name: str) -> Script:
    head = _REFUSED_WHEN_FULL if name == "submit" else _ALLOWED_WHEN_FULL
    # One line each between the parts would shift line numbers in Redis' error messages: none is added.
    parts = ("common.lua", f"{name}.lua")
    text = head + "".join((_SCRIPTS / part).read_text(encoding="utf-8") for part in parts)
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
