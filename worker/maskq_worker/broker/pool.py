"""Celery's thread pool, which counts its free threads and wakes the main loop when one is free.

The loop takes a message only while a thread can run it at once. In Celery an acknowledgement wakes the
loop when a task ends. Messages are not acknowledged here (app.py), so without the pool the loop would
sleep until its next timer, up to a second later.
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
        # It starts a thread only if none is idle.
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
            # Celery is not told: it would keep the request forever, and the error would be lost.
            logger.error("Celery could not run %s: %r", request, error, exc_info=error)
            if request is not None:
                state.task_ready(request)
        hub = get_event_loop()
        if hub is not None:
            hub.call_soon(_nothing)


def _nothing() -> None:
    """Does nothing: the call wakes the loop, which checks again whether it may take a message."""
