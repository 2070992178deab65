"""Whose record is read when: the rules that threads and event loops share, with a clock of the test."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from maskq.client.waiting import waits as module
from maskq.client.waiting.waits import OUTAGE_S, RECHECK_S, Wait, Waits
from maskq.errors import StoreUnavailable
from maskq.ledger.calls import Call

AWAY = StoreUnavailable("Redis is away")


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


class Ended(list[Wait]):
    """Waits that were told that they are over."""

    def wait(self, channel: str) -> Wait:
        call: Call[Any] = Call(None, ("GET", channel), str)
        made = Wait(channel, call, lambda answer: answer == "ended", lambda: self.append(made))
        return made


def subscribed(waits: Waits) -> list[str]:
    """The channels that are subscribed to now, each confirmed."""
    channels = [c for command in waits.changes() if command[0] == "SUBSCRIBE" for c in command[1:]]
    for channel in channels:
        waits.heard(["subscribe", channel, 1])
    return channels


def test_the_confirmation_of_a_subscription_is_the_first_wake_up(clock: Clock) -> None:
    waits, ended = Waits(), Ended()
    one = ended.wait("a")
    waits.add(one)
    assert waits.due() == []
    assert subscribed(waits) == ["a"]
    assert waits.due() == [one]
    assert waits.due() == []


def test_a_message_wakes_those_of_its_channel_alone(clock: Clock) -> None:
    waits, ended = Waits(), Ended()
    first, second, other = ended.wait("a"), ended.wait("a"), ended.wait("b")
    for one in (first, second, other):
        waits.add(one)
    subscribed(waits)
    waits.due()
    waits.heard(["message", "a", ""])
    assert set(waits.due()) == {first, second}


def test_who_comes_to_a_channel_that_is_subscribed_is_looked_at_and_wakes_the_reader(
    clock: Clock,
) -> None:
    """No confirmation will come, and the message may have come just before."""
    waits, ended = Waits(), Ended()
    waits.add(ended.wait("a"))
    subscribed(waits)
    waits.due()
    late = ended.wait("a")
    waits.add(late)
    assert waits.changes() == [("PING",)]
    assert waits.due() == [late]


def test_a_channel_is_left_with_its_last_wait(clock: Clock) -> None:
    waits, ended = Waits(), Ended()
    first, second = ended.wait("a"), ended.wait("a")
    waits.add(first)
    waits.add(second)
    subscribed(waits)
    waits.remove(first)
    assert not any("UNSUBSCRIBE" in command for command in waits.changes())
    waits.remove(second)
    assert waits.changes() == [("UNSUBSCRIBE", "a")]
    never_sent = ended.wait("b")
    waits.add(never_sent)
    waits.remove(never_sent)
    assert waits.changes() == []
    assert len(waits) == 0


def test_a_new_connection_subscribes_to_everything(clock: Clock) -> None:
    waits, ended = Waits(), Ended()
    for name in ("a", "b"):
        waits.add(ended.wait(name))
    subscribed(waits)
    waits.add(ended.wait("c"))
    assert waits.connected() == [("SUBSCRIBE", "a", "b", "c")]
    assert not waits.has_changes


@pytest.mark.parametrize("number", [1, 7, 500, 5000])
def test_every_record_is_read_within_five_seconds_and_never_all_at_once(
    clock: Clock, number: int
) -> None:
    # Given waits that began together, whose channels are subscribed to
    waits, ended = Waits(), Ended()
    for name in range(number):
        waits.add(ended.wait(str(name)))
    subscribed(waits)
    while waits.due():
        pass
    # When nobody is woken for eleven seconds
    end, looks, largest = clock.now + 2 * RECHECK_S + 1, Counter[Wait](), 0
    while clock.now < end:
        clock.now += waits.next_s()
        due = waits.due()
        looks.update(due)
        largest = max(largest, len(due))
    # Then each was looked at twice, in small portions
    assert len(looks) == number
    assert min(looks.values()) >= 2
    assert max(looks.values()) <= 3
    assert largest <= max(1, number * 0.15 / RECHECK_S + 1)


def test_an_outage_is_waited_out_for_a_minute(clock: Clock) -> None:
    waits, ended = Waits(), Ended()
    one = ended.wait("a")
    waits.add(one)
    subscribed(waits)
    clock.now += OUTAGE_S - 1
    assert waits.took(waits.due(), [AWAY])
    assert not ended
    clock.now += 2
    assert not waits.took(waits.due(), [AWAY])
    assert ended == [one]
    with pytest.raises(StoreUnavailable, match="away"):
        one.result()


def test_an_answer_in_between_begins_the_minute_anew(clock: Clock) -> None:
    waits, ended = Waits(), Ended()
    one = ended.wait("a")
    waits.add(one)
    subscribed(waits)
    for _ in range(5):
        clock.now += OUTAGE_S - 10
        waits.took([one], [AWAY])
        waits.took(waits.due(), ["running"])
    assert not ended
    waits.took([one], ["ended"])
    assert one.result() == "ended"


def test_an_error_of_one_record_ends_its_wait_alone(clock: Clock) -> None:
    waits, ended = Waits(), Ended()
    bad, good = ended.wait("a"), ended.wait("b")
    waits.add(bad)
    waits.add(good)
    subscribed(waits)
    waits.took(waits.due(), [ValueError("not a record"), "running"])
    assert ended == [bad]
    assert len(waits) == 1


def test_a_program_that_was_busy_for_long_does_not_give_up_its_connection(clock: Clock) -> None:
    waits, ended = Waits(), Ended()
    waits.add(ended.wait("a"))
    clock.now += 100
    assert waits.ping_is_due()
    assert not waits.is_lost


def test_a_silent_connection_is_asked_and_then_lost(clock: Clock) -> None:
    waits, ended = Waits(), Ended()
    waits.add(ended.wait("a"))
    clock.now += 4
    assert not waits.ping_is_due()
    clock.now += 2
    assert waits.ping_is_due()
    waits.heard(["pong", ""])
    clock.now += 6
    assert waits.ping_is_due()
    assert not waits.is_lost
    clock.now += 6
    assert waits.ping_is_due()
    assert waits.is_lost
