"""Which events a reader wants, and when it stops waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from maskq.client.operations.flow import Flow
from maskq.contract import Event, JobRecord
from maskq.contract.events import EVENT_DATA
from maskq.contract.ids import is_own_id
from maskq.errors import InvalidRequest

BLOCK_S: Final = 2.0  # that Redis may hold back an answer; below the socket's timeout
TAKE_OVER_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class EventFilter:
    """The event types and jobs that a reader wants; None: all."""

    types: frozenset[str] | None
    job_ids: frozenset[str] | None

    @classmethod
    def of(cls, types: Iterable[str] | None, job_ids: Iterable[str] | None) -> EventFilter:
        """The filter a caller describes. Raises InvalidRequest for a bare string or unknown type."""
        return cls(_full_names(_set_of(types)), _set_of(job_ids))

    def resolved(
        self, records: Callable[[Sequence[str]], Flow[Mapping[str, JobRecord | None]]]
    ) -> Flow[EventFilter]:
        """This filter with aliases of jobs resolved to their ids. `records`: reads records."""
        aliases = [name for name in self.job_ids or () if not is_own_id(name)]
        if not aliases:
            return self
        found = yield from records(aliases)
        ids = {record.id for record in found.values() if record}
        return replace(self, job_ids=(self.job_ids or frozenset()) | ids)

    def passes(self, event: Event) -> bool:
        """Whether the reader wants this event."""
        return (self.types is None or event.type in self.types) and (
            self.job_ids is None or event.subject in self.job_ids
        )


def _set_of(given: Iterable[str] | None) -> frozenset[str] | None:
    if isinstance(given, str):
        raise InvalidRequest(f"{given!r} is one string; give a list of them")
    return None if given is None else frozenset(given)


def _full_names(types: frozenset[str] | None) -> frozenset[str] | None:
    names = types and frozenset(f"maskq.{name.removeprefix('maskq.')}" for name in types)
    if unknown := sorted((names or frozenset()) - EVENT_DATA.keys()):
        raise InvalidRequest(
            f"{unknown[0].removeprefix('maskq.')!r} is not a valid event type; valid are: "
            + ", ".join(name.removeprefix("maskq.") for name in EVENT_DATA)
        )
    return names


def left_s_of(last: float, idle: float | None) -> float | None:
    """Seconds left until `idle` seconds have passed since the last event (`last`, time.monotonic())."""
    return None if idle is None else last + idle - time.monotonic()
