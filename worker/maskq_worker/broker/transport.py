"""Celery's Redis transport over our own connections. It survives any bytes that are pushed on a list.

kombu's own parser of URLs is not used: it does not support `?db=`, and if the transport is named, as it
is here, kombu sends a password before TLS.

In kombu's transport one message that is not JSON ends the worker's main loop, and several kinds of
malformed messages block a thread forever. Here each message is parsed before Celery sees it
(envelope.py). A refused message is moved to `{key_prefix}:refused` with the reason, and the next one is
read. The last 100 refused messages are kept.

The pool's free threads (slots.py) decide whether a message is read, not Celery's count of reserved
requests.

kombu's producers put a message with a priority on a separate list, named by kombu's `sep` and the
number. The callers' queue is read from all of these lists, the most urgent (0) first.

A worker with kombu's transport does not start while Redis is full, although only workers free memory
in it. This transport starts.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from queue import Empty
from typing import Any

from kombu.serialization import register
from kombu.transport import redis
from redis import OutOfMemoryError, RedisError

from maskq.ledger.connections.pools import connection_class, connection_options
from maskq.ledger.connections.redis_url import RedisUrl
from maskq_worker.broker import envelope
from maskq_worker.broker.envelope import Refused
from maskq_worker.broker.slots import Slots

logger = logging.getLogger(__name__)

_KEPT = 100
_KEPT_BYTES = 2000  # of a refused message
# Between a queue's name and a priority: kombu's default, and what Celery's documentation suggests.
_SEPARATORS = ("\x06\x16", ":")
_PRIORITIES = range(1, 10)
_READ_MARGIN_S = 0.5

# The bodies that envelope.py makes are decoded already.
register("maskq", lambda value: value, lambda value: value, envelope.DECODED, "utf-8")


@dataclass(frozen=True, slots=True)
class Inbox:
    """The lists that a worker reads, and the slots that decide when it reads."""

    callers_queue: str  # raw Celery callers send to it
    tickets: str  # the queue of tickets of `model`
    model: str
    slots: Slots

    def lists(self) -> dict[str, str]:
        """The queue that each list belongs to, in the order of reading."""
        return {self.tickets: self.tickets} | dict.fromkeys(
            self._callers_lists(), self.callers_queue
        )

    def _callers_lists(self) -> Iterator[str]:
        yield self.callers_queue
        for priority in _PRIORITIES:
            for separator in _SEPARATORS:
                yield f"{self.callers_queue}{separator}{priority}"


class QoS(redis.QoS):
    """Skips acknowledgements of messages that Redis does not keep.

    Celery acknowledges every message, also those of queues without acknowledgements. kombu would send
    each to Redis: one round trip of the main loop per job.
    """

    def can_consume(self) -> bool:
        inbox = self.channel.inbox
        return (inbox is None or inbox.slots.free > 0) and bool(super().can_consume())

    def ack(self, delivery_tag: str) -> None:
        if delivery_tag in self._delivered:
            super().ack(delivery_tag)

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Do nothing: no message is kept back, and a full Redis refuses the lock of the check."""


class Channel(redis.Channel):
    QoS = QoS
    refused_key = "maskq:refused"
    redis_url: RedisUrl
    inbox: Inbox | None = None  # None: the channel only sends

    from_transport_options = (  # type: ignore[assignment]
        *redis.Channel.from_transport_options, "refused_key", "redis_url", "inbox",
    )  # fmt: skip

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        self.connection_class = connection_class(self.redis_url)
        # kombu's subclass, which tells the event loop when a connection ends.
        made = super()._connparams(asynchronous)["connection_class"]
        most = {"max_connections": self.max_connections}
        return connection_options(self.redis_url) | most | {"connection_class": made}

    def _queue_bind(self, *binding: Any) -> None:
        try:
            super()._queue_bind(*binding)
        except OutOfMemoryError:  # only producers use bindings
            logger.warning("Redis is full: the queues are consumed, and bound at the next start")

    @cached_property
    def _queue_of_list(self) -> Mapping[str, str]:
        return self.inbox.lists() if self.inbox else {}

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        lists = [
            name
            for queue in queues
            for name, of_queue in self._queue_of_list.items()
            if of_queue == queue
        ]
        if not lists:
            return
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()  # type: ignore[assignment]
        self.client.connection.send_command("BRPOP", *lists, timeout or self.brpop_timeout)

    def _brpop_read(self, **options: Any) -> bool:
        connection = self.client.connection
        try:
            answer = self.client.parse_response(connection, "BRPOP", **options)
        except self.connection_errors:
            connection.disconnect()  # the main loop reconnects
            raise
        finally:
            self._in_poll = None  # type: ignore[assignment]
            self._flush_brpop_reauth()
        if not answer:
            raise Empty
        name, raw = answer
        queue = self._queue_of_list[name.decode()]
        if queue not in self.connection._callbacks:  # no longer consumed: the worker is stopping
            self._put_back(name, raw)
            raise Empty
        self._queue_cycle.rotate(queue)
        self._take(queue, raw)
        return True

    def _put_back(self, name: bytes, raw: bytes) -> None:
        """Put a message back at the front of its list."""
        with self.conn_or_acquire() as client:
            client.rpush(name, raw)

    def _take(self, queue: str, raw: bytes) -> None:
        """Deliver a message to Celery, or put it aside."""
        try:
            message = self._parsed(queue, raw)
        except Refused as refused:
            self._put_aside(queue, raw, refused.reason)
            if refused.answer is None:
                return
            message = refused.answer
        try:
            self.connection._deliver(message, queue)
        except Exception as error:  # noqa: BLE001 - one bad message must not stop the others
            self._put_aside(queue, raw, f"Celery could not take it: {error!r}")

    def _parsed(self, queue: str, raw: bytes) -> envelope.Message:
        if self.inbox and queue == self.inbox.tickets and envelope.is_ticket(raw):
            return envelope.ticket_message(self.inbox.model)
        return envelope.segment_message(raw)

    def _put_aside(self, queue: str, raw: bytes, reason: str) -> None:
        text = raw[:_KEPT_BYTES].decode(errors="replace")
        logger.warning(
            "refused a message of %d bytes on %s: %s (it is kept on %s)",
            len(raw), queue, reason, self.refused_key,
        )  # fmt: skip
        entry = {
            "reason": reason,
            "refused_ms": round(time.time() * 1000),
            "queue": queue,
            "bytes": len(raw),
            "text": text,
        }
        try:
            with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
                pipe.lpush(self.refused_key, json.dumps(entry, ensure_ascii=False))
                pipe.ltrim(self.refused_key, 0, _KEPT - 1)
                pipe.execute()
        except RedisError as error:  # full or unavailable: the log has the message
            logger.warning("%s could not be written: %s", self.refused_key, error)

    def close(self) -> None:
        """Put back what Redis has already sent on this connection, and close it."""
        connection = None if self.closed else self._in_poll
        if connection:
            try:
                self._finish_read(connection)
            except (RedisError, OSError) as error:
                logger.debug("the last read was interrupted: %s", error)
        super().close()

    def _finish_read(self, connection: Any) -> None:
        # Redis answers within the time-out of the read. A dead connection does not answer.
        if not connection.can_read(timeout=self.brpop_timeout + _READ_MARGIN_S):
            return
        answer = self.client.parse_response(connection, "BRPOP")
        self._in_poll = None  # type: ignore[assignment]
        if answer:
            self._put_back(*answer)


class Transport(redis.Transport):
    Channel = Channel
