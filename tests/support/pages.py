"""Code blocks of Markdown pages, run as they stand.

A block whose info string is only a language is run; `shown` behind it says that it is not, because it
needs what a test machine has not: a GPU, Docker, AWS, the hub.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.process_tree import of_session

ROOT = Path(__file__).parents[2]
SHOWN = "shown"
_FENCED = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    kind: str  # the second word of the info string, or ''
    text: str


def blocks(page: str) -> list[Block]:
    """Every block of a page, named by its path in the repository."""
    found = _FENCED.findall((ROOT / page).read_text(encoding="utf-8"))
    return [Block(*one) for one in found]


def run(page: str, names: Mapping[str, Any], **replaced: str) -> dict[str, Any]:
    """Run the blocks of a page in order, in the working directory; `names` are there for Python.

    replaced: text of the page → what stands in its place here. Returns the names that Python leaves.
    """
    kept = dict(names)
    for block in blocks(page):
        text = block.text
        for old, new in replaced.items():
            text = text.replace(old, new)
        if block.kind == "" and block.language == "python":
            exec(compile(text, page, "exec"), kept)
        elif block.kind == "" and block.language == "sh":
            shell(text)
    return kept


def shell(text: str, *, within_s: float = 120.0, **variables: str) -> str:
    """What a piece of shell prints, `maskq` and `python` being ours. Fails if any command does.

    Ends what it leaves in the background.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        ["bash", "-meuo", "pipefail", "-c", text],
        env=os.environ | {"PATH": path} | variables,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as ran:  # fmt: skip
        try:
            out, error = ran.communicate(timeout=within_s)
        finally:
            for pid in of_session(ran.pid):
                os.kill(pid, signal.SIGKILL)
    assert ran.returncode == 0, (text, out, error)
    return out
