"""What a call to the ledger is: what to send, and how to read the answer. A call does no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from maskq.ledger.keys import Key
from maskq.ledger.scripts import Script, script

T = TypeVar("T")


Argument = str | int | Key


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One round trip: a script with its arguments, or (script None) a plain command.

    The executor puts its deployment's prefix in front of a script's arguments and into each Key.
    """

    script: Script | None
    args: tuple[Argument, ...]
    parse: Callable[[Any], T]
    waits_s: float = 0.0  # how long Redis may hold the answer back
    at_once: tuple[Argument, ...] = ()  # the same command without waiting
    # Instead of `args` if the server does not know the script, since it has just started or became the
    # primary. Only for a call that is not run with others.
    args_when_new: tuple[Argument, ...] = ()


# A century stands for 'never'. A time to live beyond Redis' limit would stop a script half-way, and
# what it has written would stay.
_LONGEST_S = 100 * 366 * 86_400.0


def scripted(
    name: str, parse: Callable[[Any], T], *more: Argument, **arguments: Argument
) -> Call[T]:
    """A call of `lua/NAME.lua` with its arguments by name; `more` follow them."""
    chosen = script(name)
    return Call(chosen, (*chosen.in_order(arguments), *more), parse)


def to_ms(seconds: float) -> int:
    """Whole milliseconds, a century at most."""
    return round(min(seconds, _LONGEST_S) * 1000)
