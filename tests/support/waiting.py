"""Waiting in tests: for a condition, never for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    condition: Callable[[], T],
    *,
    within_s: float = 60.0,
    every_s: float = 0.02,
    otherwise: Callable[[], object] = lambda: "the condition is still false",
) -> T:
    """Call `condition` until it returns something true, and return that.

    otherwise: what the failure shows. Raises AssertionError after `within_s`.
    """
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, otherwise()
        time.sleep(every_s)
    return found


async def until_async(
    condition: Callable[[], T], *, within_s: float = 60.0, every_s: float = 0.02
) -> T:
    """As `until`; the event loop runs meanwhile."""
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, "the condition is still false"
        await asyncio.sleep(every_s)
    return found


def stays(condition: Callable[[], object], *, for_s: float, every_s: float = 0.05) -> None:
    """Raises AssertionError as soon as `condition` is false. Passes when `for_s` is over."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        assert condition()
        time.sleep(every_s)
