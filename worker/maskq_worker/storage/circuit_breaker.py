"""A circuit breaker for each store, so that a store that does not answer delays only its own jobs.

A store is a bucket, or a host of presigned URLs. After a failure its circuit opens: no request is sent
for a while. Then a probe, and after it one job, try the store (half-open). Each pause is longer than
the one before. Every job needs the deployment's own bucket: no job is claimed while that does not
answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from maskq.backoff import STORE_CIRCUIT
from maskq.contract import FailureCode
from maskq.s3.errors import Meaning, StoreError

logger = logging.getLogger(__name__)

_PROBE_EVERY_S = 1.0
_RENEW_EVERY_S = 5.0  # if the worker's own credentials are refused
_LOG_EVERY_S = 60.0
_SLOW_S = 5.0  # a request without an answer is slow after this time
_SLOW_BYTES_S = 2.0**20  # a large upload may take longer
_STALLED_S = 0.5  # a request without an answer frees its slot after this time (broker/slots.py)
_WAIT_S = 1.0  # for another job's answer, if the store may hang
_TRUST_S = 60.0  # a store that answered this recently is trusted
_KEPT = 1000  # stores that are remembered


class CircuitOpen(Exception):
    """No request is sent now. `retry_s`: seconds before the next one may be sent."""

    def __init__(self, store: str, reason: str, retry_s: float) -> None:
        super().__init__(reason or f"{store} does not answer; other jobs wait for it already")
        self.retry_s = retry_s


class Use:
    """A request in progress."""

    def __init__(self, store: _Store, size: int) -> None:
        self.store = store
        self.is_trial = False
        self.is_answered = False
        sent_at = time.monotonic() + size / _SLOW_BYTES_S
        self.slow_at = sent_at + _SLOW_S
        self.stalled_at = sent_at + _STALLED_S

    def answered(self) -> None:
        """The store began to answer. From now on only the transfer takes time."""
        self.is_answered = True
        self.store.answered_at = time.monotonic()
        self.slow_at = self.stalled_at = float("inf")


class _Store:
    """The state of one store. The breaker's lock guards all but `answered_at`."""

    def __init__(self, name: str, probed: bool) -> None:
        self.name = name
        self.probed = probed  # before a job tries it
        self.failures = 0  # in a row; the circuit is closed while this is 0
        self.reason = ""
        self.retry_at = 0.0
        self.half_open = False
        self.answered_at = float("-inf")
        self.uses: set[Use] = set()

    @property
    def on_trial(self) -> bool:
        return any(use.is_trial for use in self.uses)

    def is_open(self, now: float) -> bool:
        """Whether requests are refused. A host may be tried after its pause, a bucket after a probe."""
        if not self.failures or self.half_open:
            return False
        return self.probed or now < self.retry_at

    def is_slow(self, now: float) -> bool:
        return any(use.slow_at < now for use in self.uses)


class StoreCircuitBreaker:
    """Shared by the threads of a process."""

    def __init__(
        self, home: str, concurrency: int, probe: Callable[[str], StoreError | None]
    ) -> None:
        """
        home: the deployment's own bucket; '': there is none.
        concurrency: jobs at once. An unknown or slow store may occupy a quarter of them; only home may
        occupy all.
        probe: sends a small request to a bucket; returns None if the bucket answers.
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
        self._errors: Counter[str] = Counter()  # failed requests by meaning
        self._watching = False

    # --- may jobs be claimed? -------------------------------------------------------------------------

    @property
    def may_claim(self) -> bool:
        return self._home_answers.is_set() and not self._closed.is_set()

    @property
    def home_is_away(self) -> bool:
        """Whether claiming is paused until the deployment's own bucket answers."""
        return not self._home_answers.is_set()

    def wait_to_claim(self) -> bool:
        """Wait until jobs may be claimed. Returns False if the worker stops."""
        self._home_answers.wait()
        return not self._closed.is_set()

    def close(self) -> None:
        """Wake all who wait; they return without claiming a job."""
        self._closed.set()
        self._home_answers.set()

    def home_failed(self, error: StoreError) -> None:
        """Pause claiming until the deployment's own bucket answers."""
        self._pause(error)

    @property
    def error_counts(self) -> Mapping[str, int]:
        """How many requests failed, by their Meaning."""
        with self._changed:
            return {meaning.value: self._errors[meaning] for meaning in Meaning}

    @property
    def open_count(self) -> int:
        """How many stores other than home get no request now, because they failed."""
        now = time.monotonic()
        with self._changed:
            return sum(store.is_open(now) for store in self._stores.values())

    def stalled(self) -> int:
        """How many jobs wait for a store without an answer; home is not counted."""
        now = time.monotonic()
        with self._changed:
            stores = [store for store in self._in_use if store.name != self._home]
            return sum(use.stalled_at < now for store in stores for use in store.uses)

    # --- one request ----------------------------------------------------------------------------------

    @contextmanager
    def using(self, name: str, *, size: int = 0, probed: bool = True) -> Iterator[Use]:
        """Count a request while the block runs, and note its outcome. Raises CircuitOpen.

        size: bytes that it sends. probed: whether `probe` works for this store.
        """
        use = self._begin(name, size, probed)
        try:
            yield use
        except StoreError as error:
            with self._changed:
                self._errors[error.meaning] += 1
            if error.meaning is Meaning.OUTAGE:
                self._failed(use, error)
            elif error.meaning is not Meaning.CREDENTIALS:
                self._succeeded(use)
            raise
        except BaseException:  # the store answered; the content is not its fault
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
        """Raise CircuitOpen if a request would be refused."""
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
        """Wait briefly until this store may have one more request. Raises CircuitOpen."""
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
                raise CircuitOpen(store.name, "", STORE_CIRCUIT.first_s)
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
        logger.warning("%s answers again; its jobs continue", store.name)

    def _failed(self, use: Use, error: StoreError) -> None:
        store = use.store
        if store.name == self._home:
            self._pause(error)
            return
        with self._changed:
            was_closed = not store.failures
            if was_closed or use.is_trial:  # other requests began before the failure was known
                self._open(store, str(error))
            if store.probed and not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="maskq-stores", daemon=True).start()
        if was_closed:
            logger.warning("%s; only its own jobs wait", error)
            self._pause(None)  # check whether home is unavailable as well

    def _open(self, store: _Store, reason: str) -> None:
        store.failures += 1
        store.reason = reason
        store.half_open = False
        store.retry_at = time.monotonic() + STORE_CIRCUIT.pause_s(store.failures)

    # --- probes ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Probe buckets whose circuit is open, so that no job has to wait for one that hangs."""
        while not self._closed.wait(_PROBE_EVERY_S / 2):
            with self._changed:
                open_ones = [s for s in self._stores.values() if s.failures and s.probed]
                if not open_ones:
                    self._watching = False
                    return
            for store in open_ones:
                if not store.half_open and time.monotonic() >= store.retry_at:
                    self._try(store)

    def _try(self, store: _Store) -> None:
        error = self._probed(store.name)
        with self._changed:
            if error and error.meaning is Meaning.OUTAGE:
                self._open(store, str(error))
            else:
                store.half_open = True

    def _probed(self, name: str) -> StoreError | None:
        try:
            return self._probe(name)
        except Exception as error:  # if this thread died, the circuit would stay open forever
            logger.exception("the probe of %s failed with an internal error", name)
            return outage(f"{name} cannot be probed: {error}")

    def _pause(self, error: StoreError | None) -> None:
        """Stop claiming until home answers. error: why it does not; None: probe it first."""
        with self._changed:
            if not self._home or not self.may_claim:
                return
            self._home_answers.clear()
        args = (error,)
        threading.Thread(
            target=self._await_home, args=args, name="maskq-outage", daemon=True
        ).start()

    def _await_home(self, error: StoreError | None) -> None:
        began, logged_at, logged = time.monotonic(), float("-inf"), None
        error = error or self._probed(self._home)
        while error and not self._closed.is_set():
            refused = error.meaning is Meaning.CREDENTIALS
            if error.meaning is not logged or time.monotonic() > logged_at + _LOG_EVERY_S:
                logged, logged_at = error.meaning, time.monotonic()
                if refused:
                    logger.error("%s; no job is claimed until they are valid", error)
                else:
                    logger.warning("%s; no job is claimed until the store answers", error)
            self._closed.wait(_RENEW_EVERY_S if refused else _PROBE_EVERY_S)
            error = None if self._closed.is_set() else self._probed(self._home)
        if logged and not self._closed.is_set():
            logger.warning("the object store answers after %.0f s", time.monotonic() - began)
        self._home_answers.set()


def outage(reason: str) -> StoreError:
    """The error by which `using` notes an outage of a store that is not S3."""
    return StoreError(FailureCode.STORE_UNAVAILABLE, reason, Meaning.OUTAGE)
