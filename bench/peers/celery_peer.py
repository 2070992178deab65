"""The peers that take Celery tasks, started and called."""

from __future__ import annotations

import gc
import secrets
from collections.abc import Mapping, Sequence

from celery import Celery

from bench.peers.contender import WAIT_S, Peer


class CeleryPeer(Peer):
    queue = "celery"  # Celery's default
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
        results = [self.app.send_task("segment", [key], queue=self.queue) for key in keys]
        return [result.get(timeout=WAIT_S) for result in results]

    def stop(self) -> None:
        super().stop()
        gc.collect()  # results in cycles unsubscribe as they go, and later Redis is not there
        if self.app is not None:
            self.app.close()
            self.app = None


class RayServe(CeleryPeer):
    """Ray Serve's asynchronous inference, whose adapter sends tasks as this does."""

    queue = "segment"
    stays_up = False  # its services take a part of a core when they have nothing to do

    def command(self) -> Sequence[str]:
        return ["bench.peers.ray_server"]

    def environment(self) -> Mapping[str, str]:
        # Without a token of the run, Ray writes one to the user's home.
        return {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
