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
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from maskq import safe_http, webhooks
from maskq.contract.signing import ID, SIGNATURE, TIMESTAMP, sign
from maskq.contract.webhooks import DeliveryAttempt, DeliveryState
from maskq.errors import MaskqError
from maskq.ledger import Ledger, RedisUrl, calls
from maskq.ledger.calls import DueDelivery
from maskq.ledger.requirements import Role, await_met
from maskq.process import EX_CONFIG
from maskq.safe_http import Refused, Unreachable
from maskq_worker.leases import Sweeper
from maskq_worker.parent import end_with
from maskq_worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

_AT_ONCE = 32
_AT_ONCE_A_HOST = 8  # a slow receiver leaves the others their threads
_HOLD_S = 60.0  # longer than any attempt
_SOONEST_S, _LATEST_S = 0.1, 15.0  # before a delivery is looked at again whose receiver is busy
_HOSTS_KEPT = 1000
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


@dataclass(slots=True)
class _Host:
    """What is on its way to one receiver, and how long it took last."""

    begun: dict[str, float] = field(default_factory=dict)  # delivery → monotonic seconds
    took_s: float = 0.0

    def wait_s(self) -> float:
        """0 if there is room for one more, else when to ask again: a slow receiver is asked after
        seldom, or looking through its backlog would cost more than delivering."""
        if len(self.begun) < _AT_ONCE_A_HOST:
            return 0.0
        oldest_s = time.monotonic() - min(self.begun.values())
        return min(max(oldest_s, self.took_s, _SOONEST_S), _LATEST_S) * random.uniform(1.0, 1.5)


class Deliverer:
    """Takes what is due and posts it, some at a time, few of them to one host."""

    def __init__(self, ledger: Ledger, settings: WebhookSettings) -> None:
        """Raises InvalidRequest for a secret that is none."""
        self._ledger = ledger
        self._settings = settings
        self._prefix = settings.key_prefix
        self._keys = webhooks.keys_of(settings.webhook_secret.get_secret_value())
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="maskq-webhook")
        self._hosts: defaultdict[str, _Host] = defaultdict(_Host)
        self._changed = threading.Lock()

    def deliver_due(self) -> int:
        """Start what is due and finds a free thread; how many those were."""
        with self._changed:
            if len(self._hosts) > _HOSTS_KEPT:
                idle = [name for name, host in self._hosts.items() if not host.begun]
                for name in idle:
                    del self._hosts[name]
            free = _AT_ONCE - sum(len(host.begun) for host in self._hosts.values())
        if free <= 0:
            return 0
        due = self._ledger.run(calls.due_deliveries(self._prefix, cap=free, hold_s=_HOLD_S))
        for delivery in due:
            name = _host(delivery.url)
            with self._changed:
                host = self._hosts[name]
                wait_s = host.wait_s()
                if not wait_s:
                    host.begun[delivery.id] = time.monotonic()
            if wait_s:
                self._ledger.run(calls.delivery_later(self._prefix, delivery, wait_s))
            else:
                self._pool.submit(self._deliver, delivery, host)
        return len(due)

    def close(self) -> None:
        """Let what is on its way arrive."""
        self._pool.shutdown(wait=True)

    def _deliver(self, due: DueDelivery, host: _Host) -> None:
        try:
            self._try(due)
        except MaskqError as error:  # it stays due
            logger.warning("webhook %s: %s", due.id, error)
        except Exception:
            logger.exception("webhook %s met a fault of ours", due.id)
        finally:
            with self._changed:
                host.took_s = time.monotonic() - host.begun.pop(due.id)

    def _try(self, due: DueDelivery) -> None:
        began = time.monotonic()
        try:
            state, delay_s, status, error = self._outcome(due)
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
        call = calls.delivery_tried(
            self._prefix, due, state, attempt, delay_s=delay_s, keep_s=self._settings.retention_s
        )
        self._ledger.run(call)
        level = logging.INFO if state is DeliveryState.DELIVERED else logging.WARNING
        said = error or status
        logger.log(level, "webhook %s, attempt %d: %s (%s)", due.id, due.attempts + 1, state, said)

    def _outcome(self, due: DueDelivery) -> tuple[DeliveryState, float, int | None, str | None]:
        """State, seconds until the next attempt, HTTP status and error of one attempt."""
        try:
            target = safe_http.check(
                due.url,
                self._settings.webhook_allowed_hosts,
                setting="MASKQ_WEBHOOK_ALLOWED_HOSTS",
            )
            answer = safe_http.post(target, due.body.encode(), self._headers(due))
        except Refused as refused:
            return DeliveryState.FAILED, 0.0, None, f"not called: {refused}"
        except Unreachable as unreachable:
            return *self._again(due, 0.0), None, str(unreachable)
        if 200 <= answer.status < 300:
            return DeliveryState.DELIVERED, 0.0, answer.status, None
        said = answer.body[:200].decode(errors="replace")
        if answer.status == _GONE:
            return DeliveryState.FAILED, 0.0, answer.status, f"gone: {said}"
        wait_s = _retry_after_s(answer.headers) if answer.status in _SLOW_DOWN else 0.0
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


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""  # `safe_http.check` refuses it and says why


def _retry_after_s(headers: Mapping[str, str]) -> float:
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
        ledger = Ledger(RedisUrl.of(settings))
        deliverer = Deliverer(ledger, settings)
    except MaskqError as error:
        print(f"maskq worker: {error}", file=sys.stderr)
        return EX_CONFIG
    logging.basicConfig(
        level=settings.log_level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        await_met(ledger, Role.WEBHOOKS, settings.key_prefix, "*", partial(_pause, stop))
    except MaskqError as error:
        print(f"maskq worker: {error}", file=sys.stderr)
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
    sweeper = Sweeper(ledger, settings.key_prefix, settings.lease_s, settings.event_retention_s)
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
