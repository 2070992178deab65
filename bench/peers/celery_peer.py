"""The naive Celery task, started and called."""

from __future__ import annotations

import gc
from collections.abc import Sequence

from celery import Celery

from bench.peers.contender import WAIT_S, Peer


class CeleryPeer(Peer):
    app: Celery | None = None

    def command(self) -> Sequence[str]:
        processes = str(self.setup.processes)
        options = ["--pool", "prefork", "--concurrency", processes, "--loglevel", "WARNING"]
        return ["celery", "-A", "bench.peers.celery_task", "worker", *options]

    def ready(self) -> bool:
        """Its parent process answers; the model may still load."""
        if self.app is None:
            url = self.setup.redis_url
            self.app = Celery("naive", broker=url, backend=url, set_as_current=False)
        return bool(self.app.control.ping(timeout=0.5))

    def run(self, keys: Sequence[str]) -> list[str]:
        assert self.app is not None, "not started"
        results = [self.app.send_task("segment", [key]) for key in keys]
        return [result.get(timeout=WAIT_S) for result in results]

    def stop(self) -> None:
        super().stop()
        gc.collect()  # results in cycles unsubscribe as they go, and later Redis is not there
        if self.app is not None:
            self.app.close()
            self.app = None
