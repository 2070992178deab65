"""What rules must know of an object beside its name: its content type, and whether maskq wrote it."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from maskq.client.direct.objects import Described, Objects
from maskq.contract.locations import S3Uri
from maskq.errors import StoreRefused, StoreUnavailable
from maskq_gateway.sources.object_created import ObjectCreated

logger = logging.getLogger(__name__)

_PAUSE_S: Final = 30.0  # after an outage of the object store
_UNKNOWN: Final = Described("", None)


class Inspection:
    """Asks the object store. Thread-safe."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._paused_until = 0.0
        self._lock = threading.Lock()

    def describe(self, event: ObjectCreated, *, required: bool) -> Described:
        """The object of an event; without a content type if the store does not say.

        required: raise StoreUnavailable if the store is unavailable; otherwise the object counts as
        unknown then, and the store is left alone for a while.
        """
        with self._lock:
            if not required and time.monotonic() < self._paused_until:
                return _UNKNOWN
        place = S3Uri(event.bucket, event.key)
        try:
            return self._objects.describe(place, event.version_id)
        except StoreRefused as error:  # missing, or no right to read it: the job will say so
            logger.debug("%s", error)
            return _UNKNOWN
        except StoreUnavailable as error:
            if required:
                raise
            logger.warning("%s; uploads start jobs without a look at their metadata", error)
            with self._lock:
                self._paused_until = time.monotonic() + _PAUSE_S
            return _UNKNOWN
