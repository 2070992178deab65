"""Takes due deliveries from the ledger and posts them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Final

from maskq import safe_http, webhooks
from maskq.backoff import WEBHOOK_JITTER, RetrySchedule
from maskq.contract.webhooks import DeliveryAttempt, DeliveryState
from maskq.contract.webhooks.signing import ID, SIGNATURE, TIMESTAMP, sign
from maskq.errors import MaskqError
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import Call, DueDelivery
from maskq.process.stop_times import WEBHOOKS_DRAIN_S
from maskq.safe_http import Refused, Unreachable
from maskq_worker.bulkhead import BoundCall, Bulkhead, Busy, Share, Standing, host_of
from maskq_worker.telemetry.delivery_trace import DeliveryTrace
from maskq_worker.webhooks.settings import WebhookSettings

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 128
# 32 calls are left for receivers that were fast the last time.
_SHARES: Final = {
    Standing.FAST: Share(total=_AT_ONCE, host=8, wider=16),
    Standing.UNKNOWN: Share(total=64, host=1, wider=4),
    Standing.SLOW: Share(total=32, host=2, wider=4),
}
_HOLD_S: Final = 60.0  # longer than any attempt
_GONE: Final = 410
_SLOW_DOWN: Final = (429, 503)
_LONGEST_RETRY_AFTER_S: Final = 86_400.0
# Upwards only: a receiver that is up again must not get all deliveries at the same moment.


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How one attempt ended."""

    state: DeliveryState
    retry_after_s: float  # until the next attempt, while the state is PENDING
    status: int | None  # of HTTP
    error: str | None

    @property
    def explanation(self) -> object:
        return self.error or self.status


class Deliverer:
    """Posts due deliveries: many at the same time, few of them to one receiver."""

    def __init__(self, ledger: Ledger, settings: WebhookSettings) -> None:
        """Raises InvalidRequest if the secret is not valid."""
        self._ledger = ledger
        self._settings = settings
        self._retries = RetrySchedule(settings.webhook_retries_s, WEBHOOK_JITTER)
        self._keys = webhooks.keys_of(settings.webhook_secret.get_secret_value())
        self._bulkhead = Bulkhead(_AT_ONCE, _SHARES)
        self._threads: set[threading.Thread] = set()

    def deliver_due(self) -> int:
        """Start the due deliveries for which there is room. Returns how many were due."""
        free = self._bulkhead.free
        if free <= 0:
            return 0
        due = self._ledger.run(calls.due_deliveries(cap=free, hold_s=_HOLD_S))
        later: list[tuple[DueDelivery, float]] = []
        for delivery in due:
            try:
                call = self._bulkhead.enter(*host_of(delivery.url))
            except Busy as busy:
                later.append((delivery, busy.retry_s))
                continue
            self._start(delivery, call)
        if later:
            self._ledger.run_many([self._later(*one) for one in later])
        return len(due)

    def close(self, *, drain_s: float = WEBHOOKS_DRAIN_S) -> None:
        """Wait for the calls in progress. One that takes longer than `drain_s` is due again later."""
        end = time.monotonic() + drain_s
        for thread in list(self._threads):
            thread.join(max(0.0, end - time.monotonic()))
        if left := len(self._threads):
            logger.warning("%d webhooks are left unfinished; they are posted again", left)

    def _later(self, delivery: DueDelivery, delay_s: float) -> Call[str]:
        return calls.delivery_later(delivery, delay_s)

    def _start(self, delivery: DueDelivery, call: BoundCall) -> None:
        # A daemon thread: a slow receiver must not delay the end of this process.
        thread = threading.Thread(
            target=self._deliver, args=(delivery, call), name="maskq-webhook", daemon=True
        )
        self._threads.add(thread)
        thread.start()

    def _deliver(self, due: DueDelivery, call: BoundCall) -> None:
        try:
            self._try(due, call)
        except Busy as busy:
            self._put_off(due, busy.retry_s)
        except MaskqError as error:  # it stays due
            logger.warning("webhook %s: %s", due.id, error)
        except Exception:
            logger.exception("webhook %s met a fault of ours", due.id)
        finally:
            self._bulkhead.leave(call)
            self._threads.discard(threading.current_thread())

    def _put_off(self, due: DueDelivery, delay_s: float) -> None:
        try:
            self._ledger.run(self._later(due, delay_s))
        except MaskqError as error:  # it stays due
            logger.warning("webhook %s: %s", due.id, error)

    def _try(self, due: DueDelivery, call: BoundCall) -> None:
        """Raises Busy: the receiver was not called."""
        began, trace = time.monotonic(), DeliveryTrace(due)
        try:
            outcome = self._post(due, call, trace.headers())
        except Busy:
            raise
        except Exception as fault:
            # It counts as an attempt: uncounted, it would be posted for ever.
            logger.exception("webhook %s: the attempt met a fault of ours", due.id)
            outcome = self._later_or_failed(
                due, None, f"a fault of the sender: {type(fault).__name__}"
            )
        is_delivered = outcome.state is DeliveryState.DELIVERED
        trace.ended(outcome.status, None if is_delivered else str(outcome.explanation))
        self._record(due, outcome, took_s=time.monotonic() - began)

    def _record(self, due: DueDelivery, outcome: _Outcome, *, took_s: float) -> None:
        attempt = DeliveryAttempt(
            at_ms=int(time.time() * 1000),
            took_ms=round(took_s * 1000),
            status=outcome.status,
            error=outcome.error,
        )
        tried = calls.delivery_tried(
            due,
            outcome.state,
            attempt,
            delay_s=outcome.retry_after_s,
            keep_s=self._settings.retention_s,
        )
        self._ledger.run(tried)
        level = logging.INFO if outcome.state is DeliveryState.DELIVERED else logging.WARNING
        logger.log(
            level,
            "webhook %s, attempt %d: %s (%s)",
            due.id, due.attempts + 1, outcome.state, outcome.explanation,
        )  # fmt: skip

    def _post(self, due: DueDelivery, call: BoundCall, traced: Mapping[str, str]) -> _Outcome:
        """One attempt. traced: headers. Raises Busy: the receiver was not called."""
        try:
            target = safe_http.check(
                due.url,
                self._settings.webhook_allowed_hosts,
                setting="MASKQ_WEBHOOK_ALLOWED_HOSTS",
            )
            answer = safe_http.post(
                replace(target, addresses=call.resolved(target.addresses)),
                due.body.encode(),
                {**self._headers(due), **traced},
                on_connect=call.connected,
            )
        except Refused as refused:
            return _Outcome(DeliveryState.FAILED, 0.0, None, f"not called: {refused}")
        except Unreachable as unreachable:
            return self._later_or_failed(due, None, str(unreachable))
        if 200 <= answer.status < 300:
            return _Outcome(DeliveryState.DELIVERED, 0.0, answer.status, None)
        said = answer.body[:200].decode(errors="replace")
        if answer.status == _GONE:
            return _Outcome(DeliveryState.FAILED, 0.0, answer.status, f"gone: {said}")
        wait_s = retry_after_s(answer.headers) if answer.status in _SLOW_DOWN else 0.0
        return self._later_or_failed(due, answer.status, said, at_least_s=wait_s)

    def _later_or_failed(
        self, due: DueDelivery, status: int | None, error: str, *, at_least_s: float = 0.0
    ) -> _Outcome:
        """Of an attempt that failed: the next one follows, unless this was the last."""
        pause_s = self._retries.pause_s(due.attempts + 1)
        if pause_s is None:
            return _Outcome(DeliveryState.FAILED, 0.0, status, error)
        return _Outcome(DeliveryState.PENDING, max(pause_s, at_least_s), status, error)

    def _headers(self, due: DueDelivery) -> dict[str, str]:
        timestamp = int(time.time())
        return {
            "Content-Type": "application/cloudevents+json",
            "User-Agent": "maskq",
            ID: due.id,
            TIMESTAMP: str(timestamp),
            SIGNATURE: sign(self._keys, due.id, timestamp, due.body.encode()),
        }


def retry_after_s(headers: Mapping[str, str]) -> float:
    """The seconds that a Retry-After header asks for, given as a number or a date; else 0."""
    value = headers.get("retry-after", "")
    if value.isascii() and value.isdigit() and len(value) < 10:
        return min(float(value), _LONGEST_RETRY_AFTER_S)
    try:
        left_s = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):  # year 99999999999
        return 0.0
    return min(max(left_s, 0.0), _LONGEST_RETRY_AFTER_S)
