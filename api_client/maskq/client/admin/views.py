"""What a deployment does now: its workers, queues and stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskq.client.operations.flow import Flow, operation
from maskq.contract.deployment.overview import Overview
from maskq.contract.deployment.workers import WorkerState

if TYPE_CHECKING:
    from maskq.client.session import Session


class ViewOperations:
    """Mixed into both clients."""

    session: Session

    @operation
    def workers(self) -> Flow[Sequence[WorkerState]]:
        """The live workers of all models; over HTTP the API key needs the scope `admin`.

        A worker says every 10 s what it does. One that said nothing for 50 s is not listed any more.
        """
        return (yield from self.session.deployment.workers()).workers

    @operation
    def overview(self) -> Flow[Overview]:
        """Queues, totals, stores and limits; over HTTP the API key needs the scope `admin`.

        Stores and limits are those of this client's settings, or over HTTP of the gateway's.
        """
        return (yield from self.session.deployment.overview())
