"""Webhook deliveries of jobs and batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskq.client.operations.flow import Flow, operation
from maskq.client.operations.jobs import one_of
from maskq.contract.webhooks import Delivery, DeliveryState
from maskq.errors import JobNotFound

if TYPE_CHECKING:
    from maskq.client.session import Session


class DeliveryOperations:
    """Mixed into both clients."""

    session: Session

    @operation
    def deliveries(
        self,
        subject: str = "",
        *,
        state: DeliveryState | str | None = None,
        limit: int = 100,
    ) -> Flow[Sequence[Delivery]]:
        """Webhooks and their delivery attempts, newest first; `subject`: of this job or batch only."""
        wanted = one_of(DeliveryState, state, "delivery state")
        return (yield from self.session.deployment.deliveries(subject, wanted, limit))

    @operation
    def redeliver(self, delivery_id: str) -> Flow[None]:
        """Deliver a webhook again, whatever its state. Raises JobNotFound past its retention."""
        if not (yield from self.session.deployment.redeliver(delivery_id)):
            raise JobNotFound(delivery_id, kind="delivery")
