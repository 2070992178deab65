"""Options under their former names: accepted for one more version, with a DeprecationWarning."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar, cast

from maskq.errors import InvalidRequest

P = ParamSpec("P")
R = TypeVar("R")

FORMER_NAMES: Final = {"room_timeout": "queue_full_timeout"}  # former → current; docs/upgrading.md


def accept_former_names(method: Callable[P, R]) -> Callable[P, R]:
    """The method, called with current names whichever name its caller gives."""
    if inspect.iscoroutinefunction(method):  # and remains one

        @functools.wraps(method)
        async def awaited(*args: Any, **named: Any) -> Any:
            return await method(*args, **_renamed(named))

        return cast("Callable[P, R]", awaited)

    @functools.wraps(method)
    def called(*args: Any, **named: Any) -> R:
        return cast("Callable[..., R]", method)(*args, **_renamed(named))

    return called


def _renamed(named: dict[str, Any]) -> dict[str, Any]:
    for former in named.keys() & FORMER_NAMES.keys():
        current = FORMER_NAMES[former]
        if current in named:
            raise InvalidRequest(f"{former} is the former name of {current}; give only {current}")
        text = f"{former} is now called {current}; the next version refuses the former name"
        warnings.warn(text, DeprecationWarning, stacklevel=_level_of_caller())
        named[current] = named.pop(former)
    return named


def _level_of_caller() -> int:
    """The stacklevel, for `_renamed`, of the first caller outside this package."""
    package, _, _ = __name__.partition(".")
    level, frame = 0, inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level
