"""Groups of readers that share the events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskq.client.operations.flow import Flow, operation
from maskq.errors import InvalidRequest

if TYPE_CHECKING:
    from maskq.client.session import Session


class EventGroupOperations:
    """Mixed into both clients."""

    session: Session

    @operation
    def delete_event_group(self, group: str) -> Flow[bool]:
        """Delete a group that `events(group=…)` made; returns whether it existed.

        What its readers have not confirmed is forgotten. A reader that is still reading raises
        EventsLost. Raises InvalidRequest for an empty name.
        """
        if not group:
            raise InvalidRequest("group is empty; give the group's name")
        return (yield from self.session.deployment.delete_event_group(group))
