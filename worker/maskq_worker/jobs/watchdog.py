"""Ends the process when its model cannot run any more.

A forward that hangs (a stuck kernel, a deadlock in the driver) cannot be interrupted, a lost GPU does
not come back, and no other thread can own the model. After the process ends its leases expire. Its jobs
run in other processes, each alone, so that the job that causes the failure is found.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Protocol

from maskq.process import EX_SOFTWARE
from maskq_worker.jobs.leases import Repeating

logger = logging.getLogger(__name__)

_CHECK_EVERY_S = 1.0


class Watched(Protocol):
    def busy_since(self) -> float | None:
        """When the forward in progress began, by time.monotonic(); None while there is none."""

    def died(self) -> bool:
        """Whether the thread that runs forwards has ended by itself."""


class Watchdog:
    """Ends the process if a forward takes longer than `limit_s`, or if the model's thread died."""

    def __init__(self, model: Watched, limit_s: float) -> None:
        self._model = model
        self._limit_s = limit_s
        self._thread = Repeating("maskq-watchdog", min(_CHECK_EVERY_S, limit_s / 4), self._check)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def _check(self) -> None:
        if self._model.died():
            end_process("the model's thread died")
        since = self._model.busy_since()
        if since is None or time.monotonic() - since < self._limit_s:
            return
        end_process(
            f"a forward has not ended for {time.monotonic() - since:.0f} s "
            f"(MASKQ_FORWARD_TIMEOUT_S={self._limit_s:g})"
        )


def end_process(reason: str) -> None:
    """End the process at once, from any thread. Does not return."""
    logger.critical("%s: this process ends, its jobs run elsewhere", reason)
    logging.shutdown()
    os._exit(EX_SOFTWARE)
