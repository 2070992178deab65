"""What the scripts push is what Celery's own producer pushes: read by real kombu and real Celery."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, chain
from celery.app.task import Context
from celery.app.trace import build_tracer
from celery.canvas import Signature
from celery.worker.request import Request
from kombu.message import Message
from kombu.simple import SimpleQueue
from support import ledger_harness
from support.ledger_harness import MODEL, LedgerHarness

from maskq.ledger import calls, keys
from maskq.ledger.message import celery_head

harness = ledger_harness.harness

# What this machine and this process put into a message of their own, and names that are new each time.
OWN = {"id", "root_id", "origin", "argsrepr", "kwargsrepr"}
OWN_PROPERTIES = {"correlation_id", "reply_to", "delivery_tag", "body_encoding"}
ELSEWHERE = {"delivery_info", "properties"}  # looked at as they lie on the list
TASK_ID = "01920000-0000-7000-8000-000000000000"
REQUEST = {"image_uri": "s3://photos/ü.png", "metadata": {"k": '"quoted" \\ {}}'}}


@pytest.fixture
def app(redis_url: str, key_prefix: str) -> Iterator[Celery]:
    """A plain Celery app on the test server, with bookkeeping keys of its own."""
    app = Celery("caller", broker=redis_url, set_as_current=False)
    app.conf.broker_transport_options = {
        "unacked_key": f"{key_prefix}:unacked",
        "unacked_index_key": f"{key_prefix}:unacked_index",
        "unacked_mutex_key": f"{key_prefix}:unacked_mutex",
        "priority_steps": [0],
    }
    app.conf.task_ignore_result = True
    yield app
    app.pool.force_close_all()
    app.close()


@pytest.fixture
def simple(app: Celery, harness: LedgerHarness) -> Iterator[SimpleQueue]:
    """Kombu's consumer on the list of tickets."""
    with app.connection_for_read() as connection, SimpleQueue(connection, harness.queue) as queue:
        yield queue


def raw(harness: LedgerHarness, queue: str) -> dict[str, Any]:
    return json.loads(harness.redis.lindex(queue, 0))


def without(mapping: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


def receive(app: Celery, queue: str) -> Message:
    with app.connection_for_read() as connection, SimpleQueue(connection, queue) as simple:
        message = simple.get(timeout=30)
        message.ack()
        return message


# --- tickets ------------------------------------------------------------------------------------------


# What a ticket goes without: there may be millions. Names of the caller's own, and what is for others.
LEFT_OUT_PROPERTIES = {"correlation_id", "reply_to", "delivery_mode", "priority"}
LEFT_OUT_HEADERS = {"root_id", "origin", "argsrepr", "kwargsrepr"}


def says_nothing(value: object) -> bool:
    """As Celery's own producer writes it where the caller asked for nothing."""
    return value in (None, 0, {}, [None, None])


def test_the_scripts_ticket_is_laid_out_like_celery_s(harness: LedgerHarness, app: Celery) -> None:
    # Given
    harness.submit()
    app.send_task(keys.TASK_RUN, args=[MODEL], queue=f"{harness.queue}.other", ignore_result=True)
    # When
    ours, theirs = raw(harness, harness.queue), raw(harness, f"{harness.queue}.other")
    # Then
    assert set(ours) == set(theirs)
    inner = {"body", "headers", "properties"}
    assert without(ours, inner) == without(theirs, inner)
    assert set(theirs["properties"]) - set(ours["properties"]) == LEFT_OUT_PROPERTIES
    our_info, their_info = (m["properties"].pop("delivery_info") for m in (ours, theirs))
    assert our_info == {"exchange": "", "routing_key": harness.queue}
    assert set(our_info) == set(their_info)
    assert ours["properties"].keys() <= theirs["properties"].keys()
    # And each header has Celery's value; those left out say nothing
    for name, value in ours["headers"].items():
        assert name in theirs["headers"]
        assert name in OWN or value == theirs["headers"][name]
    left_out = without(theirs["headers"], set(ours["headers"]) | LEFT_OUT_HEADERS)
    assert all(says_nothing(value) for value in left_out.values()), left_out
    assert ours["headers"]["id"] == ours["properties"]["delivery_tag"]


def test_kombu_decodes_both_to_the_same(harness: LedgerHarness, app: Celery) -> None:
    harness.submit()
    other = f"{harness.queue}.other"
    app.send_task(keys.TASK_RUN, args=[MODEL], queue=other, ignore_result=True)
    ours, theirs = receive(app, harness.queue), receive(app, other)
    *call, follows = ours.decode()
    *their_call, nothing_follows = theirs.decode()
    assert call == their_call == [[MODEL], {}]
    assert follows == {}
    assert not any(nothing_follows.values())
    assert (ours.content_type, ours.content_encoding) == (
        theirs.content_type,
        theirs.content_encoding,
    )
    assert type(ours.body) is type(theirs.body)


def test_a_celery_worker_makes_the_same_request_of_both(
    harness: LedgerHarness, app: Celery
) -> None:
    # Given
    @app.task(name=keys.TASK_RUN, bind=True, shared=False, ignore_result=True)
    def run(self: Any, model: str) -> Any:
        return without(dict(self.request.__dict__), OWN | OWN_PROPERTIES | ELSEWHERE)

    harness.submit()
    other = f"{harness.queue}.other"
    app.send_task(keys.TASK_RUN, args=[MODEL], queue=other, ignore_result=True)
    # When each is run as a worker runs it
    trace = build_tracer(run.name, run, app=app)
    seen = []
    for queue in (harness.queue, other):
        request = Request(receive(app, queue), app=app, task=run)
        outcome = trace(request.id, request.args, request.kwargs, unpacked(request))
        assert outcome.info is None, outcome
        seen.append(outcome.retval)
        assert (request.args, request.kwargs) == ([MODEL], {})
        assert (request.eta, request.expires, request.ignore_result) == (None, None, True)
    # Then its task cannot tell them apart, but for headers at Celery's default
    ours, theirs = seen
    defaults = {name: getattr(Context, name, None) for name in set(theirs) - set(ours)}
    assert all(says_nothing(theirs[name]) and not defaults[name] for name in defaults)
    assert ours == without(theirs, set(defaults))


def test_every_ticket_is_like_the_first_but_for_its_number(harness: LedgerHarness) -> None:
    """The sweeper's, a retry's, one given back by a worker that stops, one behind expired jobs."""
    harness.submit()
    harness.redis.rename(harness.queue, harness.key("first"))
    assert harness.settle().sent_again == 1
    harness.release(*harness.claimed_job())
    harness.ledger.run(calls.send_ticket(MODEL))
    first = harness.redis.lindex(harness.key("first"), 0)
    texts = harness.redis.lrange(harness.queue, 0, -1)
    numbers = [tag_of(text).rpartition(":")[2] for text in (first, *texts)]
    assert len(set(numbers)) == len(numbers) == 4
    for text in texts:
        assert text.replace(tag_of(text), tag_of(first)) == first


def tag_of(text: str) -> str:
    return json.loads(text)["properties"]["delivery_tag"]


def test_tags_of_a_list_never_repeat(harness: LedgerHarness) -> None:
    """Kombu keeps what is unacknowledged by tag: two of the same would be acknowledged as one."""
    harness.submit_many(5, priority="high")
    jobs = harness.submit_many(5, tenant="ada")
    for job_id in jobs:
        harness.release(job_id, harness.claim(job_id))
    tags = [message["properties"]["delivery_tag"] for message in harness.messages()]
    assert len(set(tags)) == len(tags) == 15


def test_a_rejected_ticket_comes_back_and_gets_a_job(
    harness: LedgerHarness, simple: SimpleQueue
) -> None:
    # Given
    jobs = harness.submit_many(2)
    behind = tag_of(harness.redis.lindex(harness.queue, 0))
    message = simple.get(timeout=30)
    assert harness.tickets() == 1
    assert harness.redis.hlen(harness.key("unacked")) == 1
    # When
    message.reject(requeue=True)
    # Then it is there again behind the other one, and marked
    tags = [one["properties"]["delivery_tag"] for one in harness.messages()]
    assert tags == [behind, message.delivery_tag]
    assert harness.take() == jobs[0]
    again = simple.get(timeout=30)
    assert again.decode() == message.decode()
    assert again.delivery_info["redelivered"] is True
    assert harness.take_many(1) == [jobs[1]]
    again.ack()
    assert harness.redis.hlen(harness.key("unacked")) == 0


# --- the answer to a Celery caller --------------------------------------------------------------------


def _next(app: Celery, name: str) -> Signature:
    return app.signature(name, args=[1], kwargs={"k": "ü"}, queue=f"{name}-queue")


# How a caller may ask, and with what to follow. A chord's header task is sent with its body, as here.
CALLERS: dict[str, Callable[[Celery, Signature], Any]] = {
    "plain": lambda app, first: first.apply_async(task_id=TASK_ID),
    "callbacks": lambda app, first: first.apply_async(
        task_id=TASK_ID, link=[_next(app, "ok"), _next(app, "ok2")], link_error=_next(app, "bad")
    ),
    "chain": lambda app, first: chain(first, _next(app, "then"), _next(app, "last")).apply_async(),
    "chord": lambda app, first: first.set(chord=_next(app, "body"), group_id="g-1").apply_async(
        task_id=TASK_ID
    ),
}


@pytest.fixture(params=CALLERS)
def received(request: pytest.FixtureRequest, app: Celery, harness: LedgerHarness) -> Request:
    """A caller's message as the worker has it: by Celery's producer, through Redis, by kombu."""
    app.conf.result_backend = "cache+memory://"
    first = app.signature(keys.TASK_SEGMENT, args=[REQUEST], queue=harness.prefix)
    CALLERS[request.param](app, first)

    @app.task(name=keys.TASK_SEGMENT, bind=True, shared=False)
    def segment(self: Any, *args: Any) -> Any: ...

    return Request(receive(app, harness.prefix), app=app, task=segment)


def unpacked(request: Request) -> dict[str, Any]:
    """What a worker gives to its tracer: headers and, from the body, what is to follow."""
    args, kwargs, embed = request.message.decode()
    return {**request.request_dict, "args": args, "kwargs": kwargs, "is_eager": False, **embed}


def context(request: Request) -> dict[str, Any]:
    """`task.request` of a running task, as tasks.py hands it on."""
    return dict(Context(unpacked(request), called_directly=False).__dict__)


def test_a_head_and_a_tag_are_a_message(received: Request, harness: LedgerHarness) -> None:
    head = celery_head(context(received), received.args, harness.prefix)
    message = json.loads(head + '"tag"}}')
    assert message["properties"]["delivery_tag"] == "tag"


def test_a_caller_s_message_survives_the_record(
    received: Request, harness: LedgerHarness, app: Celery
) -> None:
    """What Celery needs to answer: who asked, and what is to follow."""
    # Given
    caller = context(received)
    job_id = harness.submit(
        received.id, celery_head=celery_head(caller, received.args, harness.prefix)
    )
    # When the job ends
    harness.succeed(job_id, harness.claim(job_id))
    # Then the same request comes again
    again = Request(receive(app, harness.prefix), app=app, task=received.task)
    assert (again.args, again.kwargs) == (received.args, {}) == ([REQUEST], {})
    assert again.message.decode()[2] == received.message.decode()[2]
    kept = ("id", "root_id", "parent_id", "group", "group_index", "ignore_result", "task")
    for name in (*kept, "correlation_id", "reply_to", "stamps", "stamped_headers"):
        assert again.request_dict.get(name) == received.request_dict.get(name), name
    follows = ("callbacks", "errbacks", "chain", "chord")
    assert {name: context(again).get(name) for name in follows} == {
        name: caller.get(name) for name in follows
    }


def test_what_follows_is_sent_when_the_answer_is_given(harness: LedgerHarness, app: Celery) -> None:
    """The whole way, with Celery's own tracer in the worker's place."""
    # Given
    app.conf.result_backend = "cache+memory://"
    first = app.signature(keys.TASK_SEGMENT, args=[REQUEST], queue=harness.prefix)
    then = app.signature("then", args=[1], queue=f"{harness.prefix}.then")
    also = app.signature("also", queue=f"{harness.prefix}.also")
    chain(first.set(link=also), then).apply_async()

    @app.task(name=keys.TASK_SEGMENT, bind=True, shared=False)
    def segment(self: Any, *args: Any) -> Any:
        return {"job_id": self.request.id}

    asked = Request(receive(app, harness.prefix), app=app, task=segment)
    head = celery_head(context(asked), asked.args, harness.prefix)
    job_id = harness.submit(asked.id, celery_head=head)
    # When
    harness.fail(job_id, harness.claim(job_id))
    answer = Request(receive(app, harness.prefix), app=app, task=segment)
    trace = build_tracer(segment.name, segment, app=app)
    trace(answer.id, answer.args, answer.kwargs, unpacked(answer))
    # Then
    assert receive(app, f"{harness.prefix}.then").decode()[0] == [{"job_id": job_id}, 1]
    assert receive(app, f"{harness.prefix}.also").decode()[0] == [{"job_id": job_id}]


def test_a_caller_s_answer_has_a_fresh_tag_each_time(harness: LedgerHarness) -> None:
    head = celery_head({"id": TASK_ID}, [REQUEST], harness.prefix)
    harness.submit(TASK_ID, celery_head=head)
    harness.cancel(TASK_ID)
    first = harness.redis.rpop(harness.prefix)
    harness.redis.zadd(harness.key("answers"), {TASK_ID: 1})
    assert harness.sweep().answered_again == 1
    second = harness.redis.rpop(harness.prefix)
    tags = [json.loads(text)["properties"]["delivery_tag"] for text in (first, second)]
    assert len(set(tags)) == 2
    assert first.replace(tags[0], tags[1]) == second
