"""While the object store is away nothing is claimed: jobs wait in the queue."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_PROBE_EVERY_S = 1.0


class Outage:
    """Begins with `report`, ends with the first probe that is answered; `wait` lasts as long.

    answers: asks the store for something small; whether it answered at all.
    """

    def __init__(self, answers: Callable[[], bool]) -> None:
        self._answers = answers
        self._over = threading.Event()
        self._over.set()
        self._closed = threading.Event()
        self._lock = threading.Lock()

    def report(self) -> None:
        """Somebody met a store that did not answer."""
        with self._lock:
            if not self._over.is_set() or self._closed.is_set():
                return
            self._over.clear()
        logger.warning("the object store is away: nothing is claimed until it answers")
        threading.Thread(target=self._probe, name="maskq-outage", daemon=True).start()

    @property
    def none(self) -> bool:
        """Whether one may claim right now."""
        return self._over.is_set() and not self._closed.is_set()

    def wait(self) -> bool:
        """Return when there is none; False: the worker stops, claim nothing."""
        self._over.wait()
        return not self._closed.is_set()

    def close(self) -> None:
        """Let everybody who waits go home."""
        self._closed.set()
        self._over.set()

    def _probe(self) -> None:
        began = time.monotonic()
        while not self._closed.wait(_PROBE_EVERY_S):
            if self._answers():
                logger.warning("the object store answers after %.0f s", time.monotonic() - began)
                break
        self._over.set()
