"""A forward that hangs (a stuck kernel, a driver's deadlock) cannot be interrupted: the process ends.

Its leases run out and its jobs run elsewhere, each alone, so that the one that hangs is found.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from maskq_worker.leases import Repeating

logger = logging.getLogger(__name__)

EX_SOFTWARE = 70  # sysexits.h: the supervisor starts another process
_LOOK_EVERY_S = 1.0


class Watchdog:
    """Ends the process when a forward takes longer than `limit_s`.

    busy_since: when the forward in progress began, by time.monotonic(); None while there is none.
    """

    def __init__(self, busy_since: Callable[[], float | None], limit_s: float) -> None:
        self._busy_since = busy_since
        self._limit_s = limit_s
        self._thread = Repeating("maskq-watchdog", min(_LOOK_EVERY_S, limit_s / 4), self._look)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def _look(self) -> None:
        since = self._busy_since()
        if since is None or time.monotonic() - since < self._limit_s:
            return
        logger.critical(
            "a forward has not ended for %.0f s (MASKQ_FORWARD_TIMEOUT_S=%g): this process ends, its "
            "jobs run elsewhere",
            time.monotonic() - since,
            self._limit_s,
        )  # fmt: skip
        logging.shutdown()
        os._exit(EX_SOFTWARE)
