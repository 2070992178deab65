"""Detects a worker that is alive but takes no messages.

Every few seconds it checks whether the lists that this worker reads hold messages. If they did at every
check for a while, and this worker took none in that time although a thread was free, the worker is
stuck: Redis gives a message at once to a client that waits for one. Other workers cause no false alarm:
either a message is taken here as well, or the lists are empty at some check. An outage of Redis causes
none either: the next check starts anew.

A worker whose threads are all taken but that holds no job is stuck, too, unless it waits for a store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from maskq.errors import MaskqError
from maskq.ledger import Ledger, calls
from maskq_worker.broker.slots import Slots
from maskq_worker.jobs.leases import Leases, Repeating

logger = logging.getLogger(__name__)

_CHECK_EVERY_S = 5.0
_STUCK_AFTER_S = 60.0


class ConsumerWatch:
    """While `is_stuck` is true the health file is not touched (bootstep.py)."""

    def __init__(
        self,
        ledger: Ledger,
        model: str,
        *,
        slots: Slots,
        leases: Leases,
        may_claim: Callable[[], bool],
        check_every_s: float = _CHECK_EVERY_S,
        stuck_after_s: float = _STUCK_AFTER_S,
    ) -> None:
        """may_claim: False while the store is unavailable or the worker stops; it then takes none."""
        self._ledger = ledger
        self._lengths = calls.unread(model)
        self._slots = slots
        self._leases = leases
        self._may_claim = may_claim
        self._stuck_after_s = stuck_after_s
        self._work_since: float | None = None  # every check since then found messages
        self._is_stuck = False
        self._thread = Repeating("maskq-consumer-watch", check_every_s, self.check)

    @property
    def is_stuck(self) -> bool:
        """Whether the worker takes no messages although it could."""
        return self._is_stuck

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def check(self) -> None:
        """Update `is_stuck`. Runs on its own thread; tests call it directly."""
        self._work_since = (self._work_since or time.monotonic()) if self._is_work() else None
        is_stuck = self._work_since is not None and self._takes_none(self._work_since)
        if is_stuck and not self._is_stuck:
            logger.error(
                "messages have waited for %.0f s, and this worker takes none although it could: "
                "its health file is no longer touched",
                self._stuck_after_s,
            )
        elif self._is_stuck and not is_stuck:
            logger.warning("this worker takes messages again, or none are left")
        self._is_stuck = is_stuck

    def _is_work(self) -> bool:
        try:
            return self._may_claim() and sum(self._ledger.run_many(self._lengths)) > 0
        except MaskqError:
            return False

    def _takes_none(self, work_since: float) -> bool:
        idle_s = min(time.monotonic() - work_since, self._slots.idle_s)
        could_take = self._slots.free > 0 or all(held.is_lost for held in self._leases.holding())
        return could_take and idle_s >= self._stuck_after_s
