"""`maskq worker --role webhooks`: posts what the ledger says is owed. A process without a model.

A row that is due is taken, posted, and its outcome written back; should this process die in between,
the row is due again. So a receiver may hear of an event twice, with the same webhook-id.
"""

from __future__ import annotations

import argparse
import logging
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from maskq import safe_http, webhooks
from maskq.contract.webhooks import DeliveryAttempt, DeliveryState
from maskq.contract.webhooks.signing import ID, SIGNATURE, TIMESTAMP, sign
from maskq.errors import MaskqError
from maskq.inert import log_to_stderr, print_error
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import Call, DueDelivery
from maskq.ledger.connections.requirements import Role, await_met
from maskq.process import EX_CONFIG
from maskq.safe_http import Refused, Unreachable
from maskq_worker.bulkhead import BoundCall, Bulkhead, Busy, Share, Standing, host_of
from maskq_worker.jobs.leases import Sweeper
from maskq_worker.process.parent_death import end_with
from maskq_worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

_AT_ONCE = 128
# 32 calls are left for receivers that were fast the last time.
_SHARES = {
    Standing.FAST: Share(total=_AT_ONCE, host=8, wider=16),
    Standing.UNKNOWN: Share(total=64, host=1, wider=4),
    Standing.SLOW: Share(total=32, host=2, wider=4),
}
_HOLD_S = 60.0  # longer than any attempt
_DRAIN_S = 8.0  # `docker stop` kills after 10
_IDLE_S = 0.5
_GONE, _SLOW_DOWN = 410, (429, 503)
_LONGEST_RETRY_AFTER_S = 86_400.0


class WebhookSettings(WorkerSettings):
    """What delivering needs beside the settings of any worker."""

    webhook_secret: SecretStr = SecretStr(
        ""
    )  # whsec_…; several separated by spaces while they change
    # Private receivers, and plain http: host or host:port, comma-separated.
    webhook_allowed_hosts: Annotated[frozenset[str], NoDecode] = frozenset()
    # Seconds before each retry; after the last the delivery has failed.
    webhook_retries_s: Annotated[tuple[float, ...], NoDecode] = Field(
        default=(5, 300, 1800, 7200, 18_000, 36_000, 36_000)
    )

    @field_validator("webhook_allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        return _parts(value) if isinstance(value, str) else value

    @field_validator("webhook_retries_s", mode="before")
    @classmethod
    def _split_retries(cls, value: object) -> object:
        return _parts(value) if isinstance(value, str) else value


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


class Deliverer:
    """Takes what is due and posts it, some at a time, few of them to one receiver."""

    def __init__(self, ledger: Ledger, settings: WebhookSettings) -> None:
        """Raises InvalidRequest for a secret that is none."""
        self._ledger = ledger
        self._settings = settings
        self._keys = webhooks.keys_of(settings.webhook_secret.get_secret_value())
        self._bulkhead = Bulkhead(_AT_ONCE, _SHARES)
        self._threads: set[threading.Thread] = set()

    def deliver_due(self) -> int:
        """Start what is due and finds room; returns how many were due."""
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

    def close(self, *, drain_s: float = _DRAIN_S) -> None:
        """Let the calls in hand end. What takes longer than `drain_s` seconds is due again later."""
        end = time.monotonic() + drain_s
        for thread in list(self._threads):
            thread.join(max(0.0, end - time.monotonic()))
        if left := len(self._threads):
            logger.warning("%d webhooks are left unfinished; they are posted again", left)

    def _later(self, delivery: DueDelivery, delay_s: float) -> Call[str]:
        return calls.delivery_later(delivery, delay_s)

    def _start(self, delivery: DueDelivery, call: BoundCall) -> None:
        # Daemons: a receiver must not hold up the end of this process.
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
        """Raises Busy: nobody was called."""
        began = time.monotonic()
        try:
            state, delay_s, status, error = self._outcome(due, call)
        except Busy:
            raise
        except Exception as fault:
            # It counts as an attempt: uncounted, it would be posted for ever.
            logger.exception("webhook %s: the attempt met a fault of ours", due.id)
            state, delay_s = self._again(due, 0.0)
            status, error = None, f"a fault of the sender: {type(fault).__name__}"
        attempt = DeliveryAttempt(
            at_ms=int(time.time() * 1000),
            took_ms=round((time.monotonic() - began) * 1000),
            status=status,
            error=error,
        )
        tried = calls.delivery_tried(
            due, state, attempt, delay_s=delay_s, keep_s=self._settings.retention_s
        )
        self._ledger.run(tried)
        level = logging.INFO if state is DeliveryState.DELIVERED else logging.WARNING
        said = error or status
        logger.log(level, "webhook %s, attempt %d: %s (%s)", due.id, due.attempts + 1, state, said)

    def _outcome(
        self, due: DueDelivery, call: BoundCall
    ) -> tuple[DeliveryState, float, int | None, str | None]:
        """State, seconds until the next attempt, HTTP status and error of one attempt."""
        try:
            target = safe_http.check(
                due.url,
                self._settings.webhook_allowed_hosts,
                setting="MASKQ_WEBHOOK_ALLOWED_HOSTS",
            )
            answer = safe_http.post(
                replace(target, addresses=call.resolved(target.addresses)),
                due.body.encode(),
                self._headers(due),
                on_connect=call.connected,
            )
        except Refused as refused:
            return DeliveryState.FAILED, 0.0, None, f"not called: {refused}"
        except Unreachable as unreachable:
            return *self._again(due, 0.0), None, str(unreachable)
        if 200 <= answer.status < 300:
            return DeliveryState.DELIVERED, 0.0, answer.status, None
        said = answer.body[:200].decode(errors="replace")
        if answer.status == _GONE:
            return DeliveryState.FAILED, 0.0, answer.status, f"gone: {said}"
        wait_s = retry_after_s(answer.headers) if answer.status in _SLOW_DOWN else 0.0
        return *self._again(due, wait_s), answer.status, said

    def _again(self, due: DueDelivery, at_least_s: float) -> tuple[DeliveryState, float]:
        retries = self._settings.webhook_retries_s
        if due.attempts >= len(retries):
            return DeliveryState.FAILED, 0.0
        # Jitter, so that a receiver that comes back does not meet all at once.
        delay_s = retries[due.attempts] * random.uniform(1.0, 1.2)
        return DeliveryState.PENDING, max(delay_s, at_least_s)

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
    """Seconds or a date; 0 for neither."""
    value = headers.get("retry-after", "")
    if value.isascii() and value.isdigit() and len(value) < 10:
        return min(float(value), _LONGEST_RETRY_AFTER_S)
    try:
        left_s = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):  # year 99999999999
        return 0.0
    return min(max(left_s, 0.0), _LONGEST_RETRY_AFTER_S)


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m maskq_worker.webhooks", description=__doc__)
    arguments.add_argument("--parent", type=int, help="the process to end with")
    if parent := arguments.parse_args().parent:
        end_with(parent)
    try:
        settings = WebhookSettings.load()
        ledger = Ledger.of(settings)
        deliverer = Deliverer(ledger, settings)
    except MaskqError as error:
        print_error(f"maskq worker: {error}")
        return EX_CONFIG
    log_to_stderr(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        await_met(ledger, Role.WEBHOOKS, "*", partial(_pause, stop))
    except MaskqError as error:
        print_error(f"maskq worker: {error}")
        return EX_CONFIG
    run(deliverer, ledger, settings, stop)
    return 0


def _pause(stop: threading.Event, seconds: float) -> None:
    if stop.wait(seconds):
        sys.exit(0)


def run(
    deliverer: Deliverer, ledger: Ledger, settings: WebhookSettings, stop: threading.Event
) -> None:
    """Deliver until told to stop. It sweeps as well: with no worker up, jobs must still expire."""
    sweeper = Sweeper(ledger, settings.lease_s, settings.event_retention_s)
    sweeper.start()
    while not stop.is_set():
        started = 0
        try:
            started = deliverer.deliver_due()
        except MaskqError as error:
            logger.warning("%s; trying again", error)
        if settings.health_file:
            settings.health_file.touch()
        if not started:
            stop.wait(_IDLE_S)
    deliverer.close()
    sweeper.stop()
    ledger.close()
    if settings.health_file:
        settings.health_file.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
