"""A store that does not answer holds up its own jobs only: a circuit breaker for each.

A store is a bucket, or a host of presigned URLs. One that fails is left alone for a while (open), then
asked again by a thread of ours and by one job (half-open), each time after a longer pause. Of the
deployment's own bucket every job needs something: while that does not answer nothing is claimed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from maskq.backoff import ExponentialBackoff, Jitter
from maskq.contract import FailureCode
from maskq.s3.errors import Meaning, StoreError

logger = logging.getLogger(__name__)

# How long a store is left alone after a failure.
_BACKOFF = ExponentialBackoff(first_s=1.0, longest_s=60.0, jitter=Jitter(0.8, 1.0))
_PROBE_EVERY_S = 1.0
_RENEW_EVERY_S = 5.0  # where the worker's own credentials are refused
_SAY_EVERY_S = 60.0
_SLOW_S = 5.0  # a request that has no answer by then is slow
_SLOW_BYTES_S = 2.0**20  # but what it carries counts
_STALLED_S = (
    0.5  # a request that has no answer by then needs no slot of the worker (broker/slots.py)
)
_WAIT_S = 1.0  # for another job's answer, where a store may hang
_TRUST_S = 60.0  # a store that answered so lately does not hang, as far as is known
_KEPT = 1000  # stores that are remembered


class CircuitOpen(Exception):
    """The store is not asked just now. `retry_s`: when it may be again."""

    def __init__(self, store: str, reason: str, retry_s: float) -> None:
        super().__init__(reason or f"{store} does not answer; other jobs of it wait already")
        self.retry_s = retry_s


class Use:
    """One request, while it is under way."""

    def __init__(self, store: _Store, size: int) -> None:
        self.store = store
        self.is_trial = False
        self.is_answered = False
        sent_at = time.monotonic() + size / _SLOW_BYTES_S
        self.slow_at = sent_at + _SLOW_S
        self.stalled_at = sent_at + _STALLED_S

    def answered(self) -> None:
        """The store began to answer: what takes long from now on is the transfer."""
        self.is_answered = True
        self.store.answered_at = time.monotonic()
        self.slow_at = self.stalled_at = float("inf")


class _Store:
    """What is known of one store. Guarded by the breaker's lock, but for `answered_at`."""

    def __init__(self, name: str, probed: bool) -> None:
        self.name = name
        self.probed = probed  # by a thread of ours, before a job tries
        self.failures = 0  # in a row; while there are some, the circuit is not closed
        self.reason = ""
        self.retry_at = 0.0
        self.half_open = False
        self.answered_at = float("-inf")
        self.uses: set[Use] = set()

    @property
    def on_trial(self) -> bool:
        return any(use.is_trial for use in self.uses)

    def is_slow(self, now: float) -> bool:
        return any(use.slow_at < now for use in self.uses)


class StoreCircuitBreaker:
    """Shared by every thread of a process."""

    def __init__(
        self, home: str, concurrency: int, probe: Callable[[str], StoreError | None]
    ) -> None:
        """
        home: the deployment's own bucket; '': there is none.
        concurrency: how many jobs there are at once. A store of which nothing is known, or that is
        slow, keeps a quarter of them; no store but home keeps all.
        probe: asks a bucket for something small; None if it answers, whatever it says.
        """
        self._home = home
        self.few = max(1, concurrency // 4)
        self.most = max(1, concurrency - self.few)
        self._probe = probe
        self._stores: dict[str, _Store] = {}
        self._in_use: set[_Store] = set()
        self._changed = threading.Condition()
        self._home_answers = threading.Event()
        self._home_answers.set()
        self._closed = threading.Event()
        self._watching = False

    # --- may jobs be claimed? -------------------------------------------------------------------------

    @property
    def may_claim(self) -> bool:
        return self._home_answers.is_set() and not self._closed.is_set()

    def wait_to_claim(self) -> bool:
        """Return when jobs may be claimed; False: the worker stops, claim nothing."""
        self._home_answers.wait()
        return not self._closed.is_set()

    def close(self) -> None:
        """Wake all who wait; they return without claiming a job."""
        self._closed.set()
        self._home_answers.set()

    def home_failed(self, error: StoreError) -> None:
        """Claim nothing until the deployment's own bucket answers."""
        self._pause(error)

    def stalled(self) -> int:
        """How many jobs wait for a store that is silent. Home is not counted: every job needs it."""
        now = time.monotonic()
        with self._changed:
            stores = [store for store in self._in_use if store.name != self._home]
            return sum(use.stalled_at < now for store in stores for use in store.uses)

    # --- one request ----------------------------------------------------------------------------------

    @contextmanager
    def using(self, name: str, *, size: int = 0, probed: bool = True) -> Iterator[Use]:
        """Around one request. Raises CircuitOpen; notes by a StoreError's meaning what became of it.

        size: bytes it carries. probed: whether `probe` can ask this store.
        """
        use = self._begin(name, size, probed)
        try:
            yield use
        except StoreError as error:
            if error.meaning is Meaning.OUTAGE:
                self._failed(use, error)
            elif error.meaning is not Meaning.CREDENTIALS:
                self._succeeded(use)
            raise
        except BaseException:  # what the answer was made of is not the store's fault
            if use.is_answered:
                self._succeeded(use)
            raise
        else:
            self._succeeded(use)
        finally:
            with self._changed:
                use.store.uses.discard(use)
                if not use.store.uses:
                    self._in_use.discard(use.store)
                self._changed.notify_all()

    def check(self, name: str) -> None:
        """Raise CircuitOpen if a request would certainly be refused."""
        with self._changed:
            store = self._stores.get(name)
            if store and store.failures:
                self._check_open(store, time.monotonic())

    def _begin(self, name: str, size: int, probed: bool) -> Use:
        with self._changed:
            store = self._store(name, probed)
            use = Use(store, size)
            if name != self._home:
                self._enter(store, use)
            store.uses.add(use)
            self._in_use.add(store)
        return use

    def _enter(self, store: _Store, use: Use) -> None:
        """Wait for a place among the requests of this store, for a moment."""
        until = time.monotonic() + _WAIT_S
        while True:
            now = time.monotonic()
            if store.failures:
                self._check_open(store, now)
                use.is_trial = True
                return
            slow = store.is_slow(now)
            trusted = not slow and now < store.answered_at + _TRUST_S
            if len(store.uses) < (self.most if trusted else self.few):
                return
            if slow or now >= until:
                raise CircuitOpen(store.name, "", _BACKOFF.first_s)
            self._changed.wait(until - now)

    def _check_open(self, store: _Store, now: float) -> None:
        if not store.probed and now >= store.retry_at:
            store.half_open = True
        if not store.half_open or store.on_trial:
            raise CircuitOpen(store.name, store.reason, max(store.retry_at - now, _PROBE_EVERY_S))

    def _store(self, name: str, probed: bool) -> _Store:
        if name not in self._stores:
            if len(self._stores) >= _KEPT:
                self._forget()
            self._stores[name] = _Store(name, probed)
        return self._stores[name]

    def _forget(self) -> None:
        idle = [s for s in self._stores.values() if not s.uses and not s.failures]
        for store in sorted(idle, key=lambda s: s.answered_at)[: _KEPT // 10]:
            del self._stores[store.name]

    def _succeeded(self, use: Use) -> None:
        store = use.store
        store.answered_at = time.monotonic()
        if not store.failures or not (use.is_trial or store.name == self._home):
            return
        with self._changed:
            store.failures, store.half_open = 0, False
        logger.warning("%s answers again; its jobs go on", store.name)

    def _failed(self, use: Use, error: StoreError) -> None:
        store = use.store
        if store.name == self._home:
            self._pause(error)
            return
        with self._changed:
            was_closed = not store.failures
            if was_closed or use.is_trial:  # others began before it was known
                self._leave_alone(store, str(error))
            if store.probed and not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="maskq-stores", daemon=True).start()
        if was_closed:
            logger.warning("%s; its other jobs wait, nobody else's", error)
            self._pause(None)  # or is it all of the store? Then home knows

    def _leave_alone(self, store: _Store, reason: str) -> None:
        store.failures += 1
        store.reason = reason
        store.half_open = False
        store.retry_at = time.monotonic() + _BACKOFF.pause_s(store.failures)

    # --- threads that ask -----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Ask buckets that were left alone, so that no job has to wait for one that hangs."""
        while not self._closed.wait(_PROBE_EVERY_S / 2):
            with self._changed:
                open_ones = [s for s in self._stores.values() if s.failures and s.probed]
                if not open_ones:
                    self._watching = False
                    return
            for store in open_ones:
                if not store.half_open and time.monotonic() >= store.retry_at:
                    self._ask(store)

    def _ask(self, store: _Store) -> None:
        error = self._asked(store.name)
        with self._changed:
            if error and error.meaning is Meaning.OUTAGE:
                self._leave_alone(store, str(error))
            else:
                store.half_open = True

    def _asked(self, name: str) -> StoreError | None:
        try:
            return self._probe(name)
        except Exception as error:  # a thread that died would leave the circuit open for ever
            logger.exception("a fault of ours while asking %s", name)
            return outage(f"{name} cannot be asked: {error}")

    def _pause(self, error: StoreError | None) -> None:
        """error: why home does not answer; None: it is asked first."""
        with self._changed:
            if not self._home or not self.may_claim:
                return
            self._home_answers.clear()
        args = (error,)
        threading.Thread(target=self._ask_home, args=args, name="maskq-outage", daemon=True).start()

    def _ask_home(self, error: StoreError | None) -> None:
        began, said_at, said = time.monotonic(), float("-inf"), None
        error = error or self._asked(self._home)
        while error and not self._closed.is_set():
            refused = error.meaning is Meaning.CREDENTIALS
            if error.meaning is not said or time.monotonic() > said_at + _SAY_EVERY_S:
                said, said_at = error.meaning, time.monotonic()
                if refused:
                    logger.error("%s; nothing is claimed until there are valid ones", error)
                else:
                    logger.warning("%s; nothing is claimed until it answers", error)
            self._closed.wait(_RENEW_EVERY_S if refused else _PROBE_EVERY_S)
            error = None if self._closed.is_set() else self._asked(self._home)
        if said:
            logger.warning("the object store answers after %.0f s", time.monotonic() - began)
        self._home_answers.set()


def outage(reason: str) -> StoreError:
    """What `using` notes as a failure, of a store that is not S3."""
    return StoreError(FailureCode.STORE_UNAVAILABLE, reason, Meaning.OUTAGE)
