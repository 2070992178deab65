"""What a call to the ledger is: what to send, and how to read the answer. A call does no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from maskq.ledger.keys import Key
from maskq.ledger.scripts import Script

T = TypeVar("T")


Argument = str | int | Key


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One round trip: a script with its arguments, or (script None) a plain command."""

    script: Script | None
    args: tuple[Argument, ...]
    parse: Callable[[Any], T]
    waits_s: float = 0.0  # in Redis, for something to come
    at_once: tuple[Argument, ...] = ()  # then: the same command without waiting
    # In place of `args` where the server does not know the script: it has just started, or just became
    # the primary. Only for a call that is run by itself.
    args_when_new: tuple[Argument, ...] = ()


# A century stands for 'never'. More than Redis takes as a time to live would stop a script half-way,
# and what it had written by then stays.
_LONGEST_S = 100 * 366 * 86_400.0


def to_ms(seconds: float) -> int:
    return round(min(seconds, _LONGEST_S) * 1000)
