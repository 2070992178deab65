"""Calls about groups of event readers: each event goes to one reader, until one confirms it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskq.contract import Event
from maskq.ledger import keys
from maskq.ledger.calls.base import Call, scripted
from maskq.ledger.calls.events import entries_in, events_in, texts_in


@dataclass(frozen=True, slots=True)
class Member:
    """One reader of a group."""

    group: str
    name: str  # of this reader; its unconfirmed events are kept under it


def join(member: Member, since: str) -> Call[str | None]:
    """Join the group; create it if it does not exist, reading from `since` ('': from now).

    If events were trimmed before the group read them, the answer is the cursor before the gap, else
    None. It is returned once; the group continues after the gap.
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


@dataclass(frozen=True, slots=True)
class Texts:
    """Events as JSON, each with its cursor."""

    events: list[tuple[str, str]]
    lost: tuple[str, ...] = ()  # cursors of events that were trimmed before a reader confirmed them


def read_texts(member: Member, count: int) -> Call[Texts]:
    """The next events that no reader of the group has read; does not wait for any."""
    args = ("XREADGROUP", "GROUP", member.group, member.name, "COUNT", count)
    return Call(
        None, (*args, "STREAMS", keys.events(), ">"), lambda answer: Texts(texts_in(answer))
    )


def unconfirmed_texts(member: Member, after: str, count: int) -> Call[Texts]:
    """Events after the cursor `after` that this reader got and did not confirm."""

    def parse(answer: Any) -> Texts:
        found = entries_in(answer)
        kept = [entry for entry in found if entry[1]]
        return Texts(
            texts_in([("", kept)]), tuple(cursor for cursor, fields in found if not fields)
        )

    args = ("XREADGROUP", "GROUP", member.group, member.name, "COUNT", count)
    return Call(None, (*args, "STREAMS", keys.events(), after), parse)


def take_over_texts(member: Member, idle_ms: int, count: int) -> Call[Texts]:
    """Events that a reader did not confirm for `idle_ms`."""

    def parse(answer: Sequence[Any]) -> Texts:
        _, entries, deleted = answer
        return Texts(texts_in([("", entries)]), tuple(deleted))

    args = ("XAUTOCLAIM", keys.events(), member.group, member.name, idle_ms, "0-0")
    return Call(None, (*args, "COUNT", count), parse)


def unconfirmed_count(member: Member, most: int) -> Call[int]:
    """How many events this reader has not confirmed; counts to `most`."""
    return scripted("group_unconfirmed", int, group=member.group, consumer=member.name, most=most)


def confirm_cursors(group: str, cursors: Sequence[str]) -> Call[int]:
    """Confirm events; returns how many of them were unconfirmed."""
    return Call(None, ("XACK", keys.events(), group, *cursors), int)


def leave(member: Member) -> Call[None]:
    """Leave the group. Another reader takes over what this one did not confirm."""
    return scripted("group_leave", lambda _: None, group=member.group, consumer=member.name)


def delete(group: str) -> Call[bool]:
    """Delete the group, with what its readers have not confirmed; returns whether it existed."""
    return scripted("group_delete", bool, group=group)
