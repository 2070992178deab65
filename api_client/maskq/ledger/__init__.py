"""The truth about every job, in Redis: one Lua script a transition, calls as values, two executors.

Celery carries tickets: 'run the next job of this model'. The ledger decides which job that is and
what may happen to it, even if the broker redelivers, duplicates or loses a ticket.
docs/architecture.md draws the state machine.

`maskq.ledger.calls` needs no redis-py: who uses it alone, such as a client over HTTP, does not load
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskq.ledger.connections.redis_url import RedisUrl
    from maskq.ledger.executor import AsyncLedger, Ledger

__all__ = ["AsyncLedger", "Ledger", "RedisUrl"]


def __getattr__(name: str) -> Any:
    """Load the executors, and redis-py with them, at their first use."""
    if name == "RedisUrl":
        from maskq.ledger.connections.redis_url import RedisUrl

        return RedisUrl
    if name in __all__:
        from maskq.ledger import executor

        return getattr(executor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
