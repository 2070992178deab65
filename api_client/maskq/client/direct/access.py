"""What operations need to know of a deployment beside its Redis."""

from __future__ import annotations

from dataclasses import dataclass

from maskq.client.direct.objects import Objects
from maskq.contract.storage_layout import StorageLayout
from maskq.ledger.calls import Limits


@dataclass(frozen=True, slots=True)
class DirectAccess:
    """Where a deployment keeps images, and its limits for jobs."""

    objects: Objects
    layout: StorageLayout
    limits: Limits
