"""Events as streams send them, and which of them a follower wants."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

Order = tuple[int, int]

_PLAIN: Final = re.compile(r"[\w-]+", re.ASCII)
_MOST_SEARCHED: Final = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """An event, and the server-sent event that tells it."""

    cursor: str
    order: Order
    type: str
    subject: str
    tenant: str | None
    message: str

    @classmethod
    def of(cls, cursor: str, text: str) -> Entry:
        """text: the event's JSON, as the stream has it."""
        event = json.loads(text)
        name = event["type"]
        return cls(
            cursor,
            order_of(cursor),
            name,
            event["subject"],
            event.get("data", {}).get("tenant"),
            f"id: {cursor}\nevent: {name}\ndata: {text}\n\n",
        )


@dataclass(frozen=True)
class EventFilter:
    """Which events a follower gets. Empty: all subjects, all types.

    tenant: the only one whose events it may see; None: it may see all.
    """

    tenant: str | None = None
    subjects: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()

    def passes(self, entry: Entry) -> bool:
        return (
            (not self.subjects or entry.subject in self.subjects)
            and (not self.types or entry.type in self.types)
            and (self.tenant is None or entry.tenant == self.tenant)
        )

    def may_pass(self, text: str) -> bool:
        """False if the event of this JSON certainly does not pass. Cheaper than parsing it."""
        return not self._searched or any(subject in text for subject in self._searched)

    @cached_property
    def _searched(self) -> frozenset[str]:
        """The subjects, if they are few and JSON has them as they are."""
        few = 0 < len(self.subjects) <= _MOST_SEARCHED
        return self.subjects if few and all(map(_PLAIN.fullmatch, self.subjects)) else frozenset()


def order_of(cursor: str) -> Order:
    """A cursor as numbers that can be compared."""
    milliseconds, _, sequence = cursor.partition("-")
    return int(milliseconds), int(sequence or 0)


def cursor_of(order: Order) -> str:
    return f"{order[0]}-{order[1]}"
