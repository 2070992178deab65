"""Calls about groups of event readers: each event goes to one reader, until one confirms it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskq.contract import Event
from maskq.ledger import keys
from maskq.ledger.calls.base import Call, scripted
from maskq.ledger.calls.events import events_in


@dataclass(frozen=True, slots=True)
class Member:
    """One reader of a group."""

    group: str
    name: str  # of this reader; its unconfirmed events are kept under it


def join(member: Member, since: str) -> Call[str | None]:
    """Join the group; create it if it does not exist, reading from `since` ('': from now).

    The answer is the place after which events were trimmed away unread, None if none were. It is told
    once; the group goes on behind the gap.
    """

    def parse(answer: Sequence[str]) -> str | None:
        return answer[1] if answer[0] == "lost" else None

    return scripted("group_join", parse, group=member.group, since=since)


def read(member: Member, *, block_ms: int) -> Call[list[Event]]:
    """The next event that no reader of the group has read, waiting up to `block_ms` for it."""
    begin = ("XREADGROUP", "GROUP", member.group, member.name, "COUNT", 1)
    end = ("STREAMS", keys.events(), ">")
    return Call(None, (*begin, "BLOCK", block_ms, *end), events_in, block_ms / 1000, (*begin, *end))


@dataclass(frozen=True, slots=True)
class TakenOver:
    events: list[Event]
    lost: int  # events that were trimmed before a reader confirmed them


def take_over(member: Member, idle_ms: int) -> Call[TakenOver]:
    """An event that a reader did not confirm for `idle_ms`, because it died or is stuck."""

    def parse(answer: Sequence[Any]) -> TakenOver:
        _, entries, deleted = answer
        return TakenOver(events_in([("", entries)]), len(deleted))

    args = ("XAUTOCLAIM", keys.events(), member.group, member.name, idle_ms, "0-0")
    return Call(None, (*args, "COUNT", 1), parse)


def confirm(member: Member, event: Event) -> Call[None]:
    """Confirm an event. No reader of the group gets it again."""
    args = ("XACK", keys.events(), member.group, event.cursor)
    return Call(None, args, lambda _: None)


def leave(member: Member) -> Call[None]:
    """Leave the group. Another reader takes over what this one did not confirm."""
    return scripted("group_leave", lambda _: None, group=member.group, consumer=member.name)
