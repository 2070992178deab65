"""Celery's threads pool, which counts its free threads and tells the main loop of each.

The loop takes a message off the queue only while a thread can run it at once. Acknowledgements used to
wake the loop when a task ended; nothing is acknowledged here (app.py), and without a word from
the pool it would sleep until its next timer, a second later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from celery.concurrency import thread
from celery.worker import state
from kombu.asynchronous import get_event_loop

from maskq_worker.broker.slots import Slots

logger = logging.getLogger(__name__)


class TaskPool(thread.TaskPool):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # It starts a thread only when none is idle.
        self.executor = ThreadPoolExecutor(self.slots.threads, "maskq-job")

    @property
    def slots(self) -> Slots:
        slots: Slots = self.app.slots
        return slots

    def on_apply(
        self, *args: Any, callback: Callable[..., Any] | None = None, **kwargs: Any
    ) -> thread.ApplyResult:
        self.slots.take()
        try:
            result = super().on_apply(*args, callback=callback, **kwargs)
        except BaseException:
            self.slots.release()
            raise
        # `callback` is a method of Celery's request.
        result.f.add_done_callback(partial(self._over, getattr(callback, "__self__", None)))
        return result

    def _over(self, request: Any, future: Future[Any]) -> None:
        self.slots.release()
        if error := future.exception():
            # Celery would never hear of it: it keeps the request for ever, and nobody sees the error.
            logger.error("Celery could not run %s: %r", request, error, exc_info=error)
            if request is not None:
                state.task_ready(request)
        hub = get_event_loop()
        if hub is not None:
            hub.call_soon(_nothing)


def _nothing() -> None:
    """Being called is enough: the loop looks again whether it may take a message."""
