"""The events of a fake deployment, the groups that share them, and the webhooks they cause."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from maskq.contract import Event, JobRecord
from maskq.contract.events import BATCH_COMPLETED
from maskq.contract.events import job_event as job_event_type
from maskq.contract.statuses import ENDED
from maskq.contract.tracing import TRACEPARENT, TRACESTATE, TraceContext
from maskq.contract.webhooks import Delivery, DeliveryAttempt, DeliveryState
from maskq.contract.webhooks.signing import ID, SIGNATURE, TIMESTAMP, sign
from maskq.errors import EventsLost, InvalidRequest
from maskq.ledger.calls import BatchProgress
from maskq.webhooks import keys_of

SOURCE: Final = "maskq/fake"
SECRET: Final = "whsec_" + "bWFza3EtdGVzdGluZy1ub3QtYS1zZWNyZXQh"


@dataclass(frozen=True, slots=True)
class Webhook:
    """One POST as a receiver gets it."""

    id: str
    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class _Group:
    """Readers that share events."""

    next: int  # position of the next event that no reader has
    # Cursor → position and time of delivery of an event that is not confirmed.
    unconfirmed: dict[str, tuple[int, float]] = field(default_factory=dict)


class EventStream:
    """Not thread-safe: the ledger that owns it holds a lock."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._events: list[Event] = []
        self._groups: dict[str, _Group] = {}
        self._deliveries: dict[str, tuple[Delivery, Event]] = {}

    # --- events -------------------------------------------------------------------------------------

    def add(self, event: Event, webhook: str | None) -> None:
        """Add an event and, with `webhook`, its delivery."""
        event = event.model_copy(update={"cursor": f"{len(self._events) + 1}-0"})
        self._events.append(event)
        if webhook:
            at_ms = round(event.time.timestamp() * 1000)
            delivery = Delivery(
                id=event.id,
                url=webhook,
                type=event.type,
                subject=event.subject,
                state=DeliveryState.PENDING,
                attempts=0,
                created_ms=at_ms,
                next_ms=at_ms,
            )
            self._deliveries[event.id] = (delivery, event)

    def position(self, since: str | None) -> int:
        """The number of events before the one to read next. Raises EventsLost, InvalidRequest."""
        if since is None:
            return len(self._events)
        first, _, second = since.partition("-")
        if not first.isdigit() or not (second or "0").isdigit():
            raise InvalidRequest(f"{since!r} is not a valid cursor; use the cursor of an event")
        if int(first) > len(self._events):
            last = f"{len(self._events)}-0"
            raise EventsLost(f"{since} lies ahead of the stream, whose last event is {last}")
        return int(first)

    def after(self, position: int) -> Sequence[Event]:
        """All events from this position on."""
        return self._events[position:]

    # --- groups -------------------------------------------------------------------------------------

    def join(self, group: str, since: str | None) -> None:
        """Create the group unless it exists."""
        if group not in self._groups:
            self._groups[group] = _Group(self.position(since))

    def next_of(self, group: str, take_over_s: float) -> Event | None:
        """The next event for a reader: one that was not confirmed in time, or a new one.

        Raises EventsLost for a deleted group.
        """
        if group not in self._groups:
            raise EventsLost(f"the group of event readers {group!r} was deleted")
        known, now = self._groups[group], time.monotonic()
        due = [at for at, since in known.unconfirmed.values() if now - since >= take_over_s]
        if due:
            position = min(due)
        elif known.next < len(self._events):
            position, known.next = known.next, known.next + 1
        else:
            return None
        event = self._events[position]
        known.unconfirmed[event.cursor] = (position, now)
        return event

    def confirm(self, group: str, event: Event) -> None:
        """No reader of the group gets the event again."""
        if group in self._groups:
            self._groups[group].unconfirmed.pop(event.cursor, None)

    def delete_group(self, group: str) -> bool:
        """Returns whether the group existed."""
        return self._groups.pop(group, None) is not None

    # --- webhooks -----------------------------------------------------------------------------------

    def deliveries(self, subject: str, state: DeliveryState | None, limit: int) -> list[Delivery]:
        """The newest first."""
        found = [
            delivery
            for delivery, _ in reversed(self._deliveries.values())
            if subject in ("", delivery.subject) and state in (None, delivery.state)
        ]
        return found[:limit]

    def due(self) -> list[Webhook]:
        """Webhooks that wait for an attempt, the oldest first."""
        return [
            signed(event, delivery.url, secret=self._secret)
            for delivery, event in self._deliveries.values()
            if delivery.state is DeliveryState.PENDING
        ]

    def tried(self, delivery_id: str, status: int, took_ms: int) -> None:
        """Record an attempt. 2xx: delivered; 410: failed; else it stays pending."""
        if delivery_id not in self._deliveries:
            return
        delivery, event = self._deliveries[delivery_id]
        state = DeliveryState.DELIVERED if 200 <= status < 300 else DeliveryState.PENDING
        state = DeliveryState.FAILED if status == 410 else state
        attempt = DeliveryAttempt(at_ms=time.time_ns() // 10**6, took_ms=took_ms, status=status)
        changes = {
            "state": state,
            "attempts": delivery.attempts + 1,
            "next_ms": attempt.at_ms if state is DeliveryState.PENDING else None,
            "log": [*delivery.log, attempt][-20:],
        }
        self._deliveries[delivery_id] = (delivery.model_copy(update=changes), event)

    def redeliver(self, delivery_id: str) -> bool:
        """Returns whether the delivery is known."""
        if delivery_id not in self._deliveries:
            return False
        delivery, event = self._deliveries[delivery_id]
        changes = {"state": DeliveryState.PENDING, "next_ms": time.time_ns() // 10**6}
        self._deliveries[delivery_id] = (delivery.model_copy(update=changes), event)
        return True

    def forget(self, subject: str) -> None:
        """Delete the deliveries of a job."""
        ids = [one.id for one, _ in self._deliveries.values() if one.subject == subject]
        for delivery_id in ids:
            del self._deliveries[delivery_id]


def job_event(record: JobRecord, at_ms: int) -> Event:
    """The event of a job that entered the status of its record."""
    data: dict[str, Any] = {
        "job_id": record.id, "status": record.status.value, "attempt": record.attempt,
    }  # fmt: skip
    data |= {"tenant": record.tenant} if record.tenant else {}
    data |= {"source": record.source} if record.source else {}
    event_id = f"{record.id}:{record.status.value}"
    if not record.ended:
        event_id += f":{record.attempt}"
    else:
        data["batch_id"] = record.batch_id
        data |= {"metadata": record.request.metadata} if record.request.metadata else {}
        if record.result:
            data["result"] = record.result.model_dump(mode="json", exclude_defaults=True)
        if record.error:
            data["error"] = record.error.model_dump(mode="json")
    trace = TraceContext.parse(record.traceparent, record.tracestate)
    return _event(job_event_type(record.status), record.id, event_id, at_ms, data, trace)


def batch_event(progress: BatchProgress, batch_id: str, at_ms: int) -> Event:
    """The event of a batch whose jobs have all ended."""
    counts = {status.value: progress.counts.get(status, 0) for status in ENDED}
    data = {"batch_id": batch_id, "total": progress.total, **counts}
    data |= {"tenant": progress.tenant} if progress.tenant else {}
    return _event(BATCH_COMPLETED, batch_id, f"{batch_id}:completed", at_ms, data)


def _event(
    kind: str,
    subject: str,
    event_id: str,
    at_ms: int,
    data: dict[str, Any],
    trace: TraceContext | None = None,
) -> Event:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return Event(
        id=event_id,
        source=SOURCE,
        type=kind,
        subject=subject,
        time=at,
        timestamp=at,
        traceparent=trace.traceparent if trace else None,
        tracestate=(trace.tracestate or None) if trace else None,
        data=data,
    )


def signed(event: Event, url: str = "", *, secret: str | None = None) -> Webhook:
    """The event as a webhook that `maskq.webhooks.verify` accepts with this secret.

    `secret`: default: `maskq.testing.WEBHOOK_SECRET`.
    """
    trace = TraceContext.parse(event.traceparent, event.tracestate)
    passed = trace.headers() if trace else {}
    absent = {TRACEPARENT, TRACESTATE} - passed.keys()
    body = event.model_dump_json(exclude=absent).encode()
    at = int(time.time())
    headers = {
        "content-type": "application/json",
        ID: event.id,
        TIMESTAMP: str(at),
        SIGNATURE: sign(keys_of(secret or SECRET), event.id, at, body),
        **passed,
    }
    return Webhook(event.id, url, headers, body)
