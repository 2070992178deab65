"""The leases of the jobs that this process holds, and the sweeper.

Both run on their own threads and keep running while the worker drains.
"""

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
    """This process no longer holds the job: it was canceled, timed out, or reclaimed by the sweeper."""


class HeldJob:
    """A job whose lease this process holds, and what the current attempt wrote for it.

    Call `check()` before each step that is expensive or visible to others.
    """

    def __init__(self, job_id: str, token: str) -> None:
        self.job_id = job_id
        self.token = token
        self._is_lost = False
        self._is_leaving = False
        self._written: list[S3Uri] = []
        self._may_be_committed = False

    @property
    def is_lost(self) -> bool:
        """Whether the lease is gone: the job was canceled, timed out, or reclaimed."""
        return self._is_lost

    def mark_lost(self) -> None:
        """Note that this process no longer holds the job."""
        self._is_lost = True

    @property
    def is_leaving(self) -> bool:
        """Whether this process itself ends or releases the job."""
        return self._is_leaving

    def begin_leaving(self) -> None:
        """Note it before the ledger is told, which then knows the lease no more."""
        self._is_leaving = True

    def check(self) -> None:
        """Raise LeaseLost if the lease is gone."""
        if self._is_lost:
            raise LeaseLost(self.job_id)

    @property
    def written(self) -> tuple[S3Uri, ...]:
        """Objects that this attempt wrote and that nothing else accounts for yet."""
        return tuple(self._written)

    def add_written(self, place: S3Uri) -> None:
        """Note an object before it is written."""
        self._written.append(place)

    def forget_written(self) -> None:
        """Note that the objects are deleted, part of the result, or left to the sweeper."""
        self._written.clear()

    @property
    def may_be_committed(self) -> bool:
        """Whether a manifest may name the objects although no answer has said so."""
        return self._may_be_committed

    def begin_commit(self) -> None:
        """From now on an error may hide that the manifest was written."""
        self._may_be_committed = True

    def end_commit(self) -> None:
        """It is known whether the manifest was written."""
        self._may_be_committed = False


class Leases:
    """Renews the leases of all held jobs in one call, three times per lease."""

    def __init__(self, ledger: Ledger, lease_s: float) -> None:
        self._ledger = ledger
        self._lease_s = lease_s
        self._held: dict[str, HeldJob] = {}  # token → job
        self._lost_count = 0
        self._lock = threading.Lock()
        self._thread = Repeating("maskq-leases", lease_s / 3, self._renew)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def begin(self, job_id: str, token: str) -> HeldJob:
        """Start to renew the lease of a claimed job; `hold` takes it over and ends it."""
        with self._lock:
            return self._held.setdefault(token, HeldJob(job_id, token))

    @contextmanager
    def hold(self, job_id: str, token: str) -> Iterator[HeldJob]:
        """Renew the lease of a claimed job while the block runs."""
        held = self.begin(job_id, token)
        try:
            yield held
        finally:
            with self._lock:
                del self._held[token]

    def holding(self) -> list[HeldJob]:
        """The jobs that this process holds now."""
        with self._lock:
            return list(self._held.values())

    @property
    def lost_count(self) -> int:
        """How many jobs this process lost while it held them."""
        return self._lost_count

    def _renew(self) -> None:
        held = self.holding()
        if not held:
            return
        # Pairs, since for a moment a process may hold both a job's old and its new token.
        pairs = [(one.job_id, one.token) for one in held]
        lost = self._ledger.run(calls.renew(pairs, self._lease_s))
        for one in held:
            if one.token in lost and not one.is_lost and not one.is_leaving:
                logger.info(
                    "job %s: the lease is lost; this worker stops working on it", one.job_id
                )
                one.mark_lost()
                self._lost_count += 1


class Sweeper:
    """Reclaims lost jobs, expires queued jobs and resends tickets. Any number may run side by side."""

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
        if not self._ledger.run(calls.sweep_turn()):
            return
        call = calls.sweep(
            lease_s=self._lease_s,
            event_retention_s=self._event_retention_s,
        )
        swept = self._ledger.run(call)
        if any((swept.reaped, swept.due, swept.sent_again, swept.answered_again)):
            logger.info("%s", swept)


class Repeating:
    """Calls `work` at an interval on its own thread. It keeps running during an outage of Redis."""

    def __init__(self, name: str, every_s: float, work: Callable[[], None]) -> None:
        self._every_s = every_s
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """Whether work that takes long should stop early."""
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
                # sweep.lua grants extra time only after long outages: renew soon after a short one.
                pause_s = min(pause_s, _AWAY_PAUSE_S)
            except Exception:
                logger.exception("%s failed; it continues", self._thread.name)
