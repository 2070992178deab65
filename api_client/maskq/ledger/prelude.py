"""What every Lua script starts with: names of keys, and the words of the contract.

A script holds no part of a key, no state and no event type as text. `keys.record(id)` is the same name
in Lua and in Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final

from maskq.contract import TERMINAL, FailureCode, JobStatus
from maskq.contract.events import BATCH_COMPLETED, EVENT_NAMESPACE, job_event
from maskq.contract.models import ModelChoice
from maskq.contract.options import Priority
from maskq.contract.webhooks import DeliveryState
from maskq.ledger import keys
from maskq.ledger.fair_queue import STRIDES

_KEYS: Final = re.compile(r"\bkeys\.(\w+)")
_WORDS: Final = re.compile(r"\b[A-Z][A-Z_]+\b")


def prelude(text: str) -> str:
    """One line of Lua that defines `prefix`, and the `keys` and words that a script's text uses.

    Raises KeyError for a key that is not in keys.py. One line, so that Redis' error messages name lines
    that are one off.
    """
    patterns = keys.patterns()
    used = sorted({*_KEYS.findall(text)})
    functions = ", ".join(f"{name} = {_function(patterns[name])}" for name in used)
    known = words()
    chosen = [name for name in known if name in {*_WORDS.findall(text)}]
    constants = " ".join(f"local {name} = {known[name]}" for name in chosen)
    return f"local prefix = ARGV[1] local keys = {{{functions}}} {constants}\n"


def _function(pattern: keys.Pattern) -> str:
    parts = [
        f" .. {part}" if number % 2 else f" .. {_quoted(part)}" if part else ""
        for number, part in enumerate(re.split(r"\{(\w+)\}", pattern.text))
    ]
    return f"function({', '.join(pattern.parts)}) return prefix{''.join(parts)} end"


@cache
def words() -> Mapping[str, str]:
    """Every word of the contract that a script may use, with its value in Lua."""
    jobs = list(JobStatus)
    return {
        **{status.name: _quoted(status) for status in jobs},
        **{f"PRIORITY_{level.name}": _quoted(level) for level in Priority},
        **{f"CODE_{code.name}": _quoted(code) for code in FailureCode},
        **{f"CHOICE_{choice.name}": _quoted(choice) for choice in ModelChoice},
        **{f"DELIVERY_{state.name}": _quoted(state) for state in DeliveryState},
        "LEVELS": _list(Priority),  # the most urgent first
        "STRIDES": f"{{{', '.join(f'{level} = {stride}' for level, stride in STRIDES.items())}}}",
        "TERMINAL": _list(status for status in jobs if status in TERMINAL),
        "JOB_EVENTS": _table({status: job_event(status) for status in jobs}),
        "BATCH_COMPLETED": _quoted(BATCH_COMPLETED),
        "EVENT_NAMESPACE": _quoted(EVENT_NAMESPACE),
        "TASK_RUN": _quoted(keys.TASK_RUN),
    }


def _quoted(text: str) -> str:
    return f"'{text}'"


def _list(values: Iterable[str]) -> str:
    return f"{{{', '.join(map(_quoted, values))}}}"


def _table(values: Mapping[JobStatus, str]) -> str:
    return f"{{{', '.join(f'{name} = {_quoted(value)}' for name, value in values.items())}}}"
