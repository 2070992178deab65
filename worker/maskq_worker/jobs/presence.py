"""That this process serves its model: said every half minute while it lives, taken back at the end."""

from __future__ import annotations

import hashlib
import logging
import threading
import time

from maskq.contract.models import ServingWorker
from maskq.ledger import Ledger
from maskq.ledger.calls import models
from maskq_worker.model import ModelInfo

logger = logging.getLogger(__name__)


class Presence:
    """What the ledger knows of this worker. Thread-safe."""

    def __init__(self, ledger: Ledger, info: ModelInfo, owner: str) -> None:
        self._ledger = ledger
        self._worker = ServingWorker(
            owner=owner,
            model=info.name,
            revision=info.revision,
            labels=len(info.labels),
            labels_digest=hashlib.sha256("\n".join(info.labels).encode()).hexdigest()[:16],
            backend=info.backend,
            device=info.device,
            dtype=info.dtype,
            since_ms=round(time.time() * 1000),
        )
        self._lock = threading.Lock()
        self._left = False
        self._told: frozenset[str] = frozenset()  # of which other revisions the log has a line

    def register(self) -> None:
        """Say that it serves the model. Raises StoreUnavailable, QueueFull."""
        with self._lock:
            if self._left:
                return
            others = self._ledger.run(models.register(self._worker))
        for other in others:
            if other.revision not in self._told:
                logger.warning("%s", _says_otherwise(self._worker, other))
        self._told = frozenset(other.revision for other in others)

    def leave(self) -> None:
        """It serves no more. Raises StoreUnavailable."""
        with self._lock:
            self._left = True
            self._ledger.run(models.leave(self._worker))


def _says_otherwise(own: ServingWorker, other: ServingWorker) -> str:
    classes = "the same classes"
    if other.labels_digest != own.labels_digest:
        classes = "OTHER CLASSES, so a class id means another thing"
    return (
        f"two checkpoints are served as {own.model!r}: revision {own.revision} here, and revision "
        f"{other.revision} by {other.owner} with {classes}. A job may go to either. During a rolling "
        f"upgrade this passes; if they are two models, give one of them a MASKQ_MODEL_NAME of its own"
    )
