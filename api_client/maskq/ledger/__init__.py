"""The truth about every job, in Redis: one Lua script a transition, calls as values, two executors.

Celery carries the message 'look at job X'; what may happen to job X is decided here, whatever the
broker redelivers, doubles or loses. docs/architecture.md draws the state machine.
"""

from maskq.ledger.executor import AsyncLedger, Ledger
from maskq.ledger.redis_url import RedisUrl

__all__ = ["AsyncLedger", "Ledger", "RedisUrl"]
