"""The worker's side of Celery's broker: it reads every list callers write to, and loses nothing."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty
from typing import Any

import pytest
import redis
from celery import Celery
from envelopes import envelope
from kombu import Connection, Consumer, Queue
from support import ledger_harness
from support.ledger_harness import MODEL, LedgerHarness
from support.waiting import until

from maskq.ledger import RedisUrl, keys
from maskq_worker.broker.envelope import is_ticket
from maskq_worker.broker.slots import Slots
from maskq_worker.broker.transport import Inbox, Transport

harness = ledger_harness.harness


@pytest.fixture
def inbox(harness: LedgerHarness) -> Inbox:
    return Inbox(harness.prefix, harness.queue, MODEL, Slots(1))


@pytest.fixture
def reader(redis_url: str, inbox: Inbox) -> Iterator[Connection]:
    """A worker's connection; its channel's bookkeeping has names of its own."""
    options = {
        "inbox": inbox,
        "redis_url": RedisUrl.parse(redis_url),
        "priority_steps": [0],
        "refused_key": f"{inbox.callers_queue}:refused",
        "unacked_mutex_key": f"{inbox.callers_queue}:mutex",
    }
    with Connection(redis_url, transport=Transport, transport_options=options) as connection:
        yield connection


@contextmanager
def consuming(reader: Connection, inbox: Inbox) -> Iterator[list[Any]]:
    """What has been taken so far; the loop is turned by `drain`."""
    taken: list[Any] = []
    queues = [
        Queue(name, routing_key=name, no_ack=True) for name in (inbox.callers_queue, inbox.tickets)
    ]
    channel = reader.channel()
    with Consumer(
        channel,
        queues,
        on_message=taken.append,
        accept=["maskq"],
        no_ack=True,
    ):
        yield taken


def drain(reader: Connection, turns: int) -> None:
    for _ in range(turns):
        with suppress(socket.timeout):
            reader.drain_events(timeout=0.2)


def drain_until(reader: Connection, condition: Callable[[], object]) -> None:
    """A turn may pass without a message where Redis is slow."""
    until(lambda: (drain(reader, 1), condition())[1], every_s=0)


SENDERS: dict[str, dict[str, Any]] = {
    "as Celery is installed": {},
    "ten steps": {"priority_steps": list(range(10))},
    "as Celery's documentation has it": {"priority_steps": list(range(10)), "sep": ":"},
}


@pytest.mark.parametrize("how", SENDERS)
def test_a_message_of_any_priority_is_read_the_most_urgent_first(
    how: str, harness: LedgerHarness, reader: Connection, inbox: Inbox, redis_url: str
) -> None:
    # Given a caller that sends with every priority there is, the least urgent first
    app = Celery("shop", broker=redis_url, set_as_current=False)
    app.conf.update(broker_transport_options=SENDERS[how], task_ignore_result=True)
    for priority in range(9, -1, -1):
        app.send_task(
            keys.TASK_SEGMENT,
            args=[{"priority": priority}],
            queue=inbox.callers_queue,
            priority=priority,
        )
    app.close()

    # When a worker reads
    with consuming(reader, inbox) as taken:
        drain_until(reader, lambda: len(taken) == 10)

    # Then it has them all, in order of urgency as far as the caller's steps go
    got = [message.payload[0][0][0]["priority"] for message in taken]
    assert sorted(got) == list(range(10))
    steps = SENDERS[how].get("priority_steps", [0, 3, 6, 9])
    levels = [max(step for step in steps if step <= priority) for priority in got]
    assert levels == sorted(levels)


def test_tickets_and_callers_take_turns(
    harness: LedgerHarness, reader: Connection, inbox: Inbox
) -> None:
    harness.submit_many(5)
    for _ in range(3):
        harness.redis.lpush(inbox.callers_queue, json.dumps(envelope()))
        harness.redis.lpush(f"{inbox.callers_queue}\x06\x163", json.dumps(envelope()))
    with consuming(reader, inbox) as taken:
        drain_until(reader, lambda: len(taken) == 10)
    kinds = [message.headers["task"] == keys.TASK_RUN for message in taken]
    assert sorted(kinds) == [False] * 5 + [True] * 5
    assert all(one != next_one for one, next_one in itertools.pairwise(kinds))


def test_nothing_is_read_while_no_thread_is_free(
    harness: LedgerHarness, reader: Connection, inbox: Inbox
) -> None:
    harness.submit_many(2)
    with consuming(reader, inbox) as taken:
        inbox.slots.take()
        drain(reader, 2)
        assert taken == []
        inbox.slots.release()
        drain_until(reader, lambda: taken)
        assert len(taken) == 1
    assert harness.tickets() == 1


def test_every_ticket_of_the_scripts_is_taken_for_one(harness: LedgerHarness) -> None:
    harness.serve("Intel/dpt-large-ade")
    harness.submit(model=MODEL)
    harness.submit(model="Intel/dpt-large-ade")
    for name in (harness.queue, harness.list_of("Intel/dpt-large-ade")):
        assert is_ticket(harness.redis.lindex(name, 0).encode())


@pytest.mark.parametrize("suffix", ["", "\x06\x166"])
def test_what_redis_gave_to_a_reader_that_closes_is_put_back(
    suffix: str, harness: LedgerHarness, reader: Connection, inbox: Inbox
) -> None:
    """A worker that is told to stop has a read under way: a message may be on its way to it."""
    with consuming(reader, inbox) as taken:
        drain(reader, 1)  # nothing there: a read is under way now
        channel = reader.default_channel
        reader.transport.cycle.on_poll_start()
        name = f"{inbox.callers_queue}{suffix}"
        harness.redis.lpush(name, "first")
        harness.redis.lpush(name, "second")
        assert harness.redis.lrange(name, 0, -1) == ["second"]  # the first has been given away
        channel.connection.close_connection(reader.connection)
    assert harness.redis.lrange(name, 0, -1) == ["second", "first"]
    assert taken == []


def test_what_is_read_after_the_consumer_has_gone_is_put_back(
    harness: LedgerHarness, reader: Connection, inbox: Inbox
) -> None:
    text = json.dumps(envelope())
    with consuming(reader, inbox):
        drain(reader, 1)
        reader.transport.cycle.on_poll_start()
        harness.redis.lpush(inbox.callers_queue, text)
        (channel,) = [one for one in reader.transport.channels if one.active_queues]
    with suppress(Empty):
        channel.handlers["BRPOP"]()
    assert harness.redis.lrange(inbox.callers_queue, 0, -1) == [text]


@pytest.mark.parametrize("break_it", ["full", "celery"])
def test_a_fault_on_the_way_concerns_one_message(
    break_it: str,
    harness: LedgerHarness,
    reader: Connection,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given a refused message that cannot be kept, or one at which Celery itself fails
    def fail(*_: Any, **__: Any) -> None:
        raise redis.OutOfMemoryError("full") if break_it == "full" else RuntimeError("oh")

    rubbish = "no JSON" if break_it == "full" else json.dumps(envelope())
    harness.redis.lpush(inbox.callers_queue, rubbish)
    with consuming(reader, inbox) as taken:
        if break_it == "full":
            monkeypatch.setattr(redis.client.Pipeline, "execute", fail)
        else:
            monkeypatch.setattr(reader.transport, "_deliver", fail)
        drain_until(reader, lambda: "refused a message" in caplog.text)
        monkeypatch.undo()

        # Then the next one is read as if nothing had been
        harness.submit()
        drain_until(reader, lambda: taken)
        assert [message.headers["task"] for message in taken] == [keys.TASK_RUN]
    assert harness.redis.llen(f"{inbox.callers_queue}:refused") == (break_it == "celery")
