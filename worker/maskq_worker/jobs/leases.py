"""Leases of the jobs this process holds, and the sweeper: threads of their own, alive in a drain."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from maskq.contract.locations import S3Uri
from maskq.errors import StoreUnavailable
from maskq.ledger import Ledger, calls

logger = logging.getLogger(__name__)

_SWEEP_EVERY_S = 1.0
_AWAY_PAUSE_S = 0.5


class LeaseLost(Exception):
    """This process does not hold the job any more: canceled, timed out, or swept."""


class HeldJob:
    """One job in this process's hands; `check()` before anything that costs or shows."""

    def __init__(self, job_id: str, token: str) -> None:
        self.job_id = job_id
        self.token = token
        self.written: list[S3Uri] = []  # objects of this attempt that no manifest names
        self.may_be_committed = False  # whether a manifest names them after all
        self.lost = False

    def check(self) -> None:
        """Raise Lost if the job was taken away."""
        if self.lost:
            raise LeaseLost(self.job_id)


class Leases:
    """Renews the leases of all held jobs in one call, three times a lease."""

    def __init__(self, ledger: Ledger, lease_s: float) -> None:
        self._ledger = ledger
        self._lease_s = lease_s
        self._held: dict[str, HeldJob] = {}  # token → job
        self._lock = threading.Lock()
        self._thread = Repeating("maskq-leases", lease_s / 3, self._renew)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def begin(self, job_id: str, token: str) -> HeldJob:
        """From now on its lease is renewed; `hold` goes on with it, and ends it."""
        with self._lock:
            return self._held.setdefault(token, HeldJob(job_id, token))

    @contextmanager
    def hold(self, job_id: str, token: str) -> Iterator[HeldJob]:
        held = self.begin(job_id, token)
        try:
            yield held
        finally:
            with self._lock:
                del self._held[token]

    def holding(self) -> list[HeldJob]:
        with self._lock:
            return list(self._held.values())

    def _renew(self) -> None:
        held = self.holding()
        if not held:
            return
        # Pairs: for a moment a process may hold a job's old and its new token.
        pairs = [(one.job_id, one.token) for one in held]
        lost = self._ledger.run(calls.renew(pairs, self._lease_s))
        for one in held:
            if one.token in lost:
                logger.info("job %s is no longer this worker's: its work stops here", one.job_id)
                one.lost = True


class Sweeper:
    """Does what nobody else will: reaps, expires, sends again. Any number may run side by side."""

    def __init__(self, ledger: Ledger, lease_s: float, event_retention_s: float) -> None:
        self._ledger = ledger
        self._lease_s = lease_s
        self._event_retention_s = event_retention_s
        self._thread = Repeating("maskq-sweeper", _SWEEP_EVERY_S, self._sweep)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def _sweep(self) -> None:
        call = calls.sweep(
            lease_s=self._lease_s,
            event_retention_s=self._event_retention_s,
        )
        swept = self._ledger.run(call)
        if any((swept.reaped, swept.due, swept.sent_again, swept.answered_again)):
            logger.info("%s", swept)


class Repeating:
    """Call `work` every so often on a thread of its own; an outage of Redis is waited out."""

    def __init__(self, name: str, every_s: float, work: Callable[[], None]) -> None:
        self._every_s = every_s
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """For work that takes long: whether to leave the rest."""
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        pause_s = self._every_s
        while not self._stop.wait(pause_s):
            pause_s = self._every_s
            try:
                self._work()
            except StoreUnavailable as error:
                logger.warning("%s", error)
                # A lease must be renewed soon after an outage that was too short for grace (sweep.lua).
                pause_s = min(pause_s, _AWAY_PAUSE_S)
            except Exception:
                logger.exception("%s failed; it goes on", self._thread.name)
