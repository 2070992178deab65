"""Registers in the ledger that this process serves its model, and unregisters it at the end."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from importlib.metadata import version

from maskq.contract.deployment.workers import Heartbeat
from maskq.contract.models import ServingWorker
from maskq.ledger import Ledger
from maskq.ledger.calls import models
from maskq.ledger.calls.queueing import waiting
from maskq_worker.model import ModelInfo
from maskq_worker.outputs.classes import palette_of
from maskq_worker.process.capacity import Capacity

logger = logging.getLogger(__name__)


class Presence:
    """This worker's registration in the ledger. Thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        info: ModelInfo,
        owner: str,
        *,
        plain_http: bool = False,
        capacity: Capacity | None = None,
        in_hand: Callable[[], int] = lambda: 0,
        jobs_per_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """plain_http: whether MASKQ_PRESIGNED_ALLOWED_HOSTS allows any http URL. in_hand: how many
        jobs the process holds now. jobs_per_s: how many it ends a second.
        """
        self._ledger = ledger
        self._in_hand = in_hand
        self._jobs_per_s = jobs_per_s
        self._labels = info.labels
        self._palette = palette_of(len(info.labels))
        self._worker = ServingWorker(
            owner=owner,
            model=info.name,
            revision=info.revision,
            labels=len(info.labels),
            labels_digest=hashlib.sha256("\n".join(info.labels).encode()).hexdigest()[:16],
            backend=info.backend,
            device=info.device,
            dtype=info.dtype,
            precision=info.precision,
            since_ms=round(time.time() * 1000),
            plain_http=plain_http,
            version=version("maskq"),
            max_batch_size=capacity.max_batch_size if capacity else None,
            concurrency=capacity.concurrency if capacity else None,
        )
        self._lock = threading.Lock()
        self._left = False
        self._draining = False
        self._logged: frozenset[str] = frozenset()  # other revisions that the log names already

    def register(self) -> None:
        """Register the worker, or renew its registration. Raises StoreUnavailable, QueueFull."""
        with self._lock:
            if self._left:
                return
            heartbeat = Heartbeat(
                in_hand=self._in_hand(),
                jobs_per_s=round(self._jobs_per_s(), 3),
                draining=self._draining,
            )
            call = models.register(self._worker, self._labels, self._palette, heartbeat)
            others = self._ledger.run(call)
        for other in others:
            if other.revision not in self._logged:
                logger.warning("%s", _differs(self._worker, other))
        self._logged = frozenset(other.revision for other in others)

    def drain(self) -> None:
        """Register that the worker claims nothing more. Raises StoreUnavailable, QueueFull."""
        self._draining = True
        self.register()

    def note_store_away(self) -> None:
        """Note that this worker claims nothing while its store is away. Raises StoreUnavailable."""
        self._ledger.run(waiting.note_store_away(self._worker.model, self._worker.owner))

    def leave(self) -> None:
        """Unregister the worker. Raises StoreUnavailable."""
        with self._lock:
            self._left = True
            self._ledger.run(models.leave(self._worker))


def _differs(own: ServingWorker, other: ServingWorker) -> str:
    classes = "the same classes"
    if other.labels_digest != own.labels_digest:
        classes = "OTHER CLASSES, so a class id has another meaning"
    return (
        f"two checkpoints are served as {own.model!r}: revision {own.revision} here, and revision "
        f"{other.revision} by {other.owner} with {classes}. A job may go to either. During a rolling "
        f"upgrade this passes; if they are two models, give one of them a MASKQ_MODEL_NAME of its own"
    )
