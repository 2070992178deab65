"""Celery's Redis transport over our own connections, made to survive what anybody may push on a queue.

kombu's own reading of a URL is not used: it takes no `?db=`, and sends a password before TLS where the
transport is named, as it is here.

As shipped, one message that is not JSON ends the worker's main loop. Here it is put aside on
`{key_prefix}:refused` (the last 100 are kept for a look) and the next one is read. And as shipped no
worker starts while Redis is full, though only workers can make room in it.
"""

from __future__ import annotations

import logging
from queue import Empty
from typing import Any

from kombu.transport import redis
from redis import OutOfMemoryError

from maskq.ledger.connection import connection_class, connection_options
from maskq.ledger.redis_url import RedisUrl

logger = logging.getLogger(__name__)

_KEPT = 100
_SHOWN = 200  # characters of a refused message in the log


class QoS(redis.QoS):
    """Celery acknowledges every message; kombu then asks Redis to forget what, from a queue without
    acknowledgements, Redis never kept: a round trip of the main loop for each job."""

    def ack(self, delivery_tag: str) -> None:
        if delivery_tag in self._delivered:
            super().ack(delivery_tag)

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Nothing is ever kept back; to look takes a lock, which a full Redis refuses."""


class Channel(redis.Channel):
    QoS = QoS
    refused_key = "maskq:refused"
    redis_url: RedisUrl

    from_transport_options = (  # type: ignore[assignment]
        *redis.Channel.from_transport_options, "refused_key", "redis_url",
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

    def _brpop_read(self, **options: Any) -> bool:
        try:
            return bool(super()._brpop_read(**options))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # What BRPOP gave is gone from the list; a decoding error still holds its text.
            text = str(getattr(error, "doc", error))
            logger.error("refused a message that no Celery producer wrote: %.*s", _SHOWN, text)
            with self.conn_or_acquire() as client:
                client.lpush(self.refused_key, text)
                client.ltrim(self.refused_key, 0, _KEPT - 1)
            raise Empty from error


class Transport(redis.Transport):
    Channel = Channel
