"""Whether a worker takes work when there is some. A process may be alive and deaf.

Every few seconds it looks whether messages lie on the lists that this worker reads. If some lay there
at every look for a while, and in all that time this worker has taken none although a thread was free,
it is deaf: Redis gives a message at once to whoever waits for one. Other workers raise no
alarm: either a message is taken here as well, or the lists are empty at some look. Neither does a Redis
that is away: the next look begins anew.

A worker whose threads are all taken without a job in hand is deaf, too, unless it waits for a store.
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

_LOOK_EVERY_S = 5.0
_DEAF_AFTER_S = 60.0


class ConsumerWatch:
    """`deaf` fails the health file (bootstep.py)."""

    def __init__(
        self,
        ledger: Ledger,
        model: str,
        *,
        slots: Slots,
        leases: Leases,
        may_claim: Callable[[], bool],
        look_every_s: float = _LOOK_EVERY_S,
        deaf_after_s: float = _DEAF_AFTER_S,
    ) -> None:
        """may_claim: False while the worker itself holds back, since a store is away or it stops."""
        self._ledger = ledger
        self._lengths = calls.unread(model)
        self._slots = slots
        self._leases = leases
        self._may_claim = may_claim
        self._deaf_after_s = deaf_after_s
        self._work_since: float | None = None  # at every look since then there was some
        self._deaf = False
        self._thread = Repeating("maskq-consumer-watch", look_every_s, self.look)

    @property
    def deaf(self) -> bool:
        return self._deaf

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def look(self) -> None:
        """Called on a thread of its own; a test calls it by hand."""
        self._work_since = (self._work_since or time.monotonic()) if self._is_work() else None
        deaf = self._work_since is not None and self._takes_none(self._work_since)
        if deaf and not self._deaf:
            logger.error(
                "messages have waited for %.0f s, and this worker takes none although it could: "
                "its health file is not touched any more",
                self._deaf_after_s,
            )
        elif self._deaf and not deaf:
            logger.warning("this worker takes messages again, or none are left")
        self._deaf = deaf

    def _is_work(self) -> bool:
        try:
            return self._may_claim() and sum(self._ledger.run_many(self._lengths)) > 0
        except MaskqError:
            return False

    def _takes_none(self, work_since: float) -> bool:
        still_s = min(time.monotonic() - work_since, self._slots.still_for_s)
        idle = self._slots.free > 0 or all(held.lost for held in self._leases.holding())
        return idle and still_s >= self._deaf_after_s
