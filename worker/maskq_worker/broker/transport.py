"""Celery's Redis transport over our own connections, made to survive what anybody may push on a list.

kombu's own reading of a URL is not used: it takes no `?db=`, and sends a password before TLS where the
transport is named, as it is here.

As shipped, one message that is not JSON ends the worker's main loop, and several kinds of malformed
ones cost a thread each for good. Here a message is parsed before Celery sees it (envelope.py). What is
refused is put aside on `{key_prefix}:refused` with the reason, the last 100 of them, and the next one
is read.

Whether one may be read at all is decided by the pool's free threads (slots.py), not by Celery's count
of reserved requests.

A producer's kombu puts a message with a priority on a list of its own, named by kombu's `sep` and the
number. The intake is read from all of these, the most urgent (0) first.

And as shipped no worker starts while Redis is full, though only workers can make room in it.
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

# The bodies that envelope.py makes are values already.
register("maskq", lambda value: value, lambda value: value, envelope.DECODED, "utf-8")


@dataclass(frozen=True, slots=True)
class Inbox:
    """What a worker reads, and when it may."""

    intake: str  # the queue that callers send to
    tickets: str  # the queue of tickets of `model`
    model: str
    slots: Slots

    def lists(self) -> dict[str, str]:
        """Every list that is read, and whose queue it belongs to."""
        return {self.tickets: self.tickets} | dict.fromkeys(self._intake_lists(), self.intake)

    def _intake_lists(self) -> Iterator[str]:
        yield self.intake
        for priority in _PRIORITIES:
            for separator in _SEPARATORS:
                yield f"{self.intake}{separator}{priority}"


class QoS(redis.QoS):
    """Celery acknowledges every message; kombu then asks Redis to forget what, from a queue without
    acknowledgements, Redis never kept: a round trip of the main loop for each job."""

    def can_consume(self) -> bool:
        inbox = self.channel.inbox
        return (inbox is None or inbox.slots.free > 0) and bool(super().can_consume())

    def ack(self, delivery_tag: str) -> None:
        if delivery_tag in self._delivered:
            super().ack(delivery_tag)

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Nothing is ever kept back; to look takes a lock, which a full Redis refuses."""


class Channel(redis.Channel):
    QoS = QoS
    refused_key = "maskq:refused"
    redis_url: RedisUrl
    inbox: Inbox | None = None  # None: it only sends

    from_transport_options = (  # type: ignore[assignment]
        *redis.Channel.from_transport_options, "refused_key", "redis_url", "inbox",
    )  # fmt: skip

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        self.connection_class = connection_class(self.redis_url)
        # kombu's own part of it: a class that tells the event loop of a connection that ends.
        made = super()._connparams(asynchronous)["connection_class"]
        most = {"max_connections": self.max_connections}
        return connection_options(self.redis_url) | most | {"connection_class": made}

    def _queue_bind(self, *binding: Any) -> None:
        try:
            super()._queue_bind(*binding)
        except OutOfMemoryError:  # who sends asks for what is bound; to consume, nobody does
            logger.warning("Redis is full: queues are read, and bound at the next start")

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
            connection.disconnect()  # the loop connects again
            raise
        finally:
            self._in_poll = None  # type: ignore[assignment]
            self._flush_brpop_reauth()
        if not answer:
            raise Empty
        name, raw = answer
        queue = self._queue_of_list[name.decode()]
        if queue not in self.connection._callbacks:  # no longer consumed: the worker stops
            self._put_back(name, raw)
            raise Empty
        self._queue_cycle.rotate(queue)
        self._take(queue, raw)
        return True

    def _put_back(self, name: bytes, raw: bytes) -> None:
        """In front: it was the next one."""
        with self.conn_or_acquire() as client:
            client.rpush(name, raw)

    def _take(self, queue: str, raw: bytes) -> None:
        """Give Celery what was taken off a list, or put it aside."""
        try:
            message = self._parsed(queue, raw)
        except Refused as refused:
            self._put_aside(queue, raw, refused.reason)
            if refused.answer is None:
                return
            message = refused.answer
        try:
            self.connection._deliver(message, queue)
        except Exception as error:  # noqa: BLE001 — of one message; the others are read on
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
        except RedisError as error:  # full, or away: the log has it
            logger.warning("%s could not be written: %s", self.refused_key, error)

    def close(self) -> None:
        """Before the connection goes, what Redis has already given to it is put back."""
        connection = None if self.closed else self._in_poll
        if connection:
            try:
                self._read_to_the_end(connection)
            except (RedisError, OSError) as error:
                logger.debug("the last read was cut off: %s", error)
        super().close()

    def _read_to_the_end(self, connection: Any) -> None:
        # Redis answers within the time that the read named; a connection that died does not.
        if not connection.can_read(timeout=self.brpop_timeout + _READ_MARGIN_S):
            return
        answer = self.client.parse_response(connection, "BRPOP")
        self._in_poll = None  # type: ignore[assignment]
        if answer:
            self._put_back(*answer)


class Transport(redis.Transport):
    Channel = Channel
