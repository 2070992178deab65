"""Where Celery keeps the results of raw callers: its own Redis backend, over our connections."""

from __future__ import annotations

from typing import Any

import redis
from celery.backends.redis import RedisBackend

from maskq.ledger import RedisUrl
from maskq.ledger.connections.pools import pool


class ResultBackend(RedisBackend):
    """Celery retries by itself what an outage cut off."""

    def _create_client(self, **_: Any) -> redis.Redis:
        url: RedisUrl = self.app.conf.broker_transport_options["redis_url"]
        return redis.Redis.from_pool(pool(url))
