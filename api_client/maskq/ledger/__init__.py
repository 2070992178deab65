"""The truth about every job, in Redis: one Lua script a transition, calls as values, two executors.

Celery carries tickets: 'run the next job of this model'. The ledger decides which job that is and
what may happen to it, even if the broker redelivers, duplicates or loses a ticket.
docs/architecture.md draws the state machine.
"""

from maskq.ledger.connections.redis_url import RedisUrl
from maskq.ledger.executor import AsyncLedger, Ledger

__all__ = ["AsyncLedger", "Ledger", "RedisUrl"]
