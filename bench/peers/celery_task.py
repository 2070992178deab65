"""The naive task: `celery -A bench.peers.celery_task worker`."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from bench.peers.segment import Segment
from bench.peers.setup import Setup

SETUP = Setup.from_environment()
app = Celery("naive", broker=SETUP.redis_url, backend=SETUP.redis_url)
app.conf.worker_proc_alive_timeout = 600  # 4 s by default, and a child that loads longer is killed
app.conf.broker_connection_retry_on_startup = True
loaded: dict[str, Segment] = {}


@worker_process_init.connect
def load(**_: Any) -> None:
    loaded["segment"] = Segment(SETUP)


@app.task(name="segment")
def segment(key: str) -> str:
    """Returns the mask's key."""
    return loaded["segment"]([key])[0]
