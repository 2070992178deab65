"""The waits of a client, and when their records are read; for threads and event loops alike.

One connection is subscribed to the channels of all waits. A message on a channel wakes its waits. So
does the confirmation of the subscription, so that no earlier change is missed. Waking a wait means
reading its record again; one round trip reads the records of all woken waits. If a wake-up is lost with
its connection, a periodic check finds the change: each record is read every few seconds, spread evenly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

from maskq.errors import StoreUnavailable
from maskq.ledger.calls import Call

RECHECK_S: Final = 5.0
OUTAGE_S: Final = 60.0  # that Redis may be unavailable after it has answered once
RETRY_S: Final = 0.2  # pause before the next attempt
_SILENCE_S: Final = (
    5.0  # of silence before a ping; after as long without an answer the connection is lost
)
_LOOKS: Final = 500  # records read in one round trip
_SHORTEST_S: Final = 0.1  # between two rounds of records that are due


class Wait:
    """Waits until `ready(answer)` is true for the answer of `call`, which runs when `channel` wakes."""

    __slots__ = ("_done", "answer", "answered_s", "call", "channel", "error", "over", "ready")

    def __init__(
        self,
        channel: str,
        call: Call[Any],
        ready: Callable[[Any], bool],
        done: Callable[[], object],
    ) -> None:
        """done: called once, on the thread that reads records."""
        self.channel = channel
        self.call = call
        self.ready = ready
        self.answer: Any = None
        self.error: Exception | None = None
        self.over = False
        self.answered_s = (
            time.monotonic()
        )  # when Redis last answered; the caller has just run the call
        self._done = done

    def take(self, outcome: Any) -> None:
        """An answer, or the error in its place."""
        if isinstance(outcome, StoreUnavailable):
            if time.monotonic() - self.answered_s > OUTAGE_S:
                self.fail(outcome)
        elif isinstance(outcome, Exception):
            self.fail(outcome)
        else:
            self.answered_s = time.monotonic()
            try:
                ready = self.ready(outcome)
            except Exception as error:  # noqa: BLE001 - the error belongs to this wait alone
                self.fail(error)
                return
            if ready:
                self.answer = outcome
                self._end()

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        self.error = error
        self._end()

    def _end(self) -> None:
        if not self.over:
            self.over = True
            self._done()

    def result(self) -> Any:
        """The answer that was ready. Raises the error it ended with."""
        if self.error:
            raise self.error
        return self.answer


class Waits:
    """All waits of one connection. It does no I/O and takes no lock; its owner does both."""

    def __init__(self) -> None:
        self._by_channel: dict[str, set[Wait]] = {}
        self._in_order: dict[
            Wait, None
        ] = {}  # the wait whose record was read longest ago comes first
        self._woken: dict[Wait, None] = {}
        self._new: dict[str, None] = {}  # channels to subscribe to
        self._left: dict[str, None] = {}  # channels to unsubscribe from
        self._unheard = False  # a wait was woken without a message from Redis
        self._credit = 0.0  # periodic reads that are due
        self._counted_s = self._heard_s = self._pinged_s = time.monotonic()
        self._unanswered = 0  # pings

    def __len__(self) -> int:
        return len(self._in_order)

    def add(self, wait: Wait) -> None:
        if not self._in_order:
            self._credit, self._unanswered = 0.0, 0
            self._counted_s = self._heard_s = self._pinged_s = time.monotonic()
        self._in_order[wait] = None
        waits = self._by_channel.setdefault(wait.channel, set())
        if not waits and self._left.pop(wait.channel, wait) is wait:
            self._new[wait.channel] = None
        elif wait.channel not in self._new:
            self._woken[wait] = None  # subscribed already: no confirmation will come
            self._unheard = True
        waits.add(wait)

    def remove(self, wait: Wait) -> None:
        if self._in_order.pop(wait, wait) is wait:
            return
        self._woken.pop(wait, None)
        waits = self._by_channel[wait.channel]
        waits.discard(wait)
        if not waits:
            del self._by_channel[wait.channel]
            if self._new.pop(wait.channel, wait) is wait:
                self._left[wait.channel] = None

    def fail(self, error: Exception) -> None:
        """End all of them."""
        for wait in list(self._in_order):
            wait.fail(error)

    # --- the connection -------------------------------------------------------------------------------

    def connected(self) -> list[tuple[str, ...]]:
        """The first commands of a new connection."""
        self._left.clear()
        self._new = dict.fromkeys(self._by_channel)
        self._heard_s = self._pinged_s = time.monotonic()
        self._unanswered = 0
        return self.changes()

    @property
    def has_changes(self) -> bool:
        return bool(self._new or self._left or self._unheard)

    def changes(self) -> list[tuple[str, ...]]:
        """The commands to send. Redis answers each of them, which wakes the reading thread or task."""
        commands: list[tuple[str, ...]] = []
        if self._left:
            commands.append(("UNSUBSCRIBE", *self._left))
        if self._new:
            commands.append(("SUBSCRIBE", *self._new))
        if self._unheard and not commands:
            commands.append(("PING",))
        self._new.clear()
        self._left.clear()
        self._unheard = False
        return commands

    def heard(self, message: Any) -> None:
        """Take a message from the connection."""
        self._heard_s = time.monotonic()
        self._unanswered = 0
        if isinstance(message, list | tuple) and message[0] in ("message", "subscribe"):
            self._woken.update(dict.fromkeys(self._by_channel.get(message[1], ())))

    def ping_is_due(self) -> bool:
        """Whether to ping the silent connection now."""
        now = time.monotonic()
        if now - max(self._heard_s, self._pinged_s) < _SILENCE_S:
            return False
        self._pinged_s = now
        self._unanswered += 1
        return True

    @property
    def is_lost(self) -> bool:
        """Whether a ping was still unanswered when the next one was due.

        Silence alone does not prove a lost connection: a busy program may have unread answers.
        """
        return self._unanswered > 1

    # --- the records ----------------------------------------------------------------------------------

    def due(self) -> list[Wait]:
        """The waits whose records to read now: woken ones, and those due for the periodic check."""
        now = time.monotonic()
        self._credit += (now - self._counted_s) * len(self._in_order) / RECHECK_S
        self._credit = min(self._credit, float(len(self._in_order)))
        self._counted_s = now
        due = list(islice(self._woken, _LOOKS))
        for wait in due:
            del self._woken[wait]
            self._to_the_end(wait)
        aged = min(int(self._credit), _LOOKS - len(due), len(self._in_order) - len(due))
        self._credit -= aged
        for wait in list(islice(self._in_order, aged)):
            self._woken.pop(wait, None)
            self._to_the_end(wait)
            due.append(wait)
        return due

    def _to_the_end(self, wait: Wait) -> None:
        del self._in_order[wait]
        self._in_order[wait] = None

    def took(self, waits: Sequence[Wait], outcomes: Sequence[Any]) -> bool:
        """Give the waits their answers. Returns whether some got none and will be read again."""
        again = False
        for wait, outcome in zip(waits, outcomes, strict=True):
            wait.take(outcome)
            if isinstance(outcome, StoreUnavailable) and wait in self._in_order and not wait.over:
                self._woken[wait] = None
                again = True
            if wait.over:
                self.remove(wait)
        return again

    def next_s(self) -> float:
        """Seconds until the next periodic check, unless a wait is woken earlier."""
        if self._woken:
            return 0.0
        if not self._in_order:
            return _SILENCE_S
        rate = len(self._in_order) / RECHECK_S
        return min(_SILENCE_S, max(_SHORTEST_S, (1.0 - self._credit) / rate))
