"""Celery's threads pool, which tells the main loop when a thread is free.

The loop takes a message off the queue only while a thread can run it at once. Acknowledgements used to
wake the loop when a task ended; nothing is acknowledged here (celery_app.py), and without a word from
the pool it would sleep until its next timer, a second later.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from celery.concurrency import thread
from kombu.asynchronous import get_event_loop


class TaskPool(thread.TaskPool):
    def on_apply(self, *args: Any, **kwargs: Any) -> thread.ApplyResult:
        result = super().on_apply(*args, **kwargs)
        result.f.add_done_callback(_wake_main_loop)
        return result


def _wake_main_loop(_: Future[Any]) -> None:
    hub = get_event_loop()
    if hub is not None:
        hub.call_soon(_nothing)


def _nothing() -> None:
    """Being called is enough: the loop looks again whether it may take a message."""
