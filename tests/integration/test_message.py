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

from maskq.contract.ids import new_token
from maskq.ledger import keys
from maskq.ledger.calls import ClaimOutcome
from maskq.ledger.message import celery_head

from . import ledger_desk
from .ledger_desk import Desk

desk = ledger_desk.desk

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
def simple(app: Celery, desk: Desk) -> Iterator[SimpleQueue]:
    """Kombu's consumer on the queue of jobs."""
    with app.connection_for_read() as connection, SimpleQueue(connection, desk.queue) as queue:
        yield queue


def raw(desk: Desk, queue: str) -> dict[str, Any]:
    return json.loads(desk.redis.lindex(queue, 0))


def without(mapping: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


def receive(app: Celery, queue: str) -> Message:
    with app.connection_for_read() as connection, SimpleQueue(connection, queue) as simple:
        message = simple.get(timeout=2)
        message.ack()
        return message


# --- look at job X ------------------------------------------------------------------------------------


def test_the_scripts_message_is_laid_out_like_celery_s(desk: Desk, app: Celery) -> None:
    # Given
    job_id = desk.submit()
    app.send_task(keys.TASK_RUN, args=[job_id], queue=f"{desk.queue}.other", ignore_result=True)
    # When
    ours, theirs = raw(desk, desk.queue), raw(desk, f"{desk.queue}.other")
    # Then
    assert set(ours) == set(theirs)
    assert without(ours, {"body", "headers", "properties"}) == without(
        theirs, {"body", "headers", "properties"}
    )
    assert set(ours["properties"]) == set(theirs["properties"])
    our_info, their_info = (m["properties"].pop("delivery_info") for m in (ours, theirs))
    assert our_info == {"exchange": "", "routing_key": desk.queue}
    assert set(our_info) == set(their_info)
    assert without(ours["properties"], OWN_PROPERTIES) == without(
        theirs["properties"], OWN_PROPERTIES
    )
    # And each header has Celery's value; those left out are at Celery's default
    for name, value in ours["headers"].items():
        assert name in theirs["headers"]
        assert name in OWN or value == theirs["headers"][name]
    left_out = without(theirs["headers"], set(ours["headers"]))
    assert set(left_out) == {"group_index", "replaced_task_nesting", "stamped_headers", "stamps"}
    assert not any(left_out.values())
    assert ours["headers"]["id"] == ours["headers"]["root_id"] == job_id
    assert ours["properties"]["correlation_id"] == job_id


def test_kombu_decodes_both_to_the_same(desk: Desk, app: Celery) -> None:
    job_id = desk.submit()
    other = f"{desk.queue}.other"
    app.send_task(keys.TASK_RUN, args=[job_id], queue=other, ignore_result=True)
    ours, theirs = receive(app, desk.queue), receive(app, other)
    assert ours.decode() == theirs.decode()
    assert ours.decode() == [
        [job_id],
        {},
        {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
    ]
    assert (ours.content_type, ours.content_encoding) == (
        theirs.content_type,
        theirs.content_encoding,
    )
    assert type(ours.body) is type(theirs.body)


def test_a_celery_worker_makes_the_same_request_of_both(desk: Desk, app: Celery) -> None:
    # Given
    @app.task(name=keys.TASK_RUN, bind=True, shared=False, ignore_result=True)
    def run(self: Any, job_id: str) -> Any:
        return without(dict(self.request.__dict__), OWN | OWN_PROPERTIES | ELSEWHERE)

    job_id = desk.submit()
    other = f"{desk.queue}.other"
    app.send_task(keys.TASK_RUN, args=[job_id], queue=other, ignore_result=True)
    # When each is run as a worker runs it
    trace = build_tracer(run.name, run, app=app)
    seen = []
    for queue in (desk.queue, other):
        request = Request(receive(app, queue), app=app, task=run)
        outcome = trace(request.id, request.args, request.kwargs, unpacked(request))
        assert outcome.info is None, outcome
        seen.append(outcome.retval)
        assert (request.args, request.kwargs) == ([job_id], {})
        assert (request.eta, request.expires, request.ignore_result) == (None, None, True)
    # Then its task cannot tell them apart, but for headers at Celery's default
    ours, theirs = seen
    defaults = {name: getattr(Context, name, None) for name in set(theirs) - set(ours)}
    assert not any(theirs[name] or defaults[name] for name in defaults)
    assert ours == without(theirs, set(defaults))


def test_the_sweeper_s_messages_are_no_different(desk: Desk, app: Celery) -> None:
    job_id = desk.submit()
    first = raw(desk, desk.queue)
    desk.redis.delete(desk.queue)
    assert desk.settle().sent_again == 1
    second = raw(desk, desk.queue)
    tags = [message["properties"].pop("delivery_tag") for message in (first, second)]
    assert tags == [f"{job_id}:1", f"{job_id}:2"]
    assert first == second


def test_delivery_tags_never_repeat(desk: Desk) -> None:
    """Kombu keeps what is unacknowledged by tag: two of the same would be acknowledged as one."""
    jobs = [desk.submit() for _ in range(5)]
    for job_id in jobs:
        desk.release(job_id, desk.claim(job_id))
    tags = [message["properties"]["delivery_tag"] for message in desk.messages()]
    assert len(set(tags)) == len(tags) == 10


def test_a_rejected_message_comes_back_and_its_job_can_be_claimed(
    desk: Desk, simple: SimpleQueue
) -> None:
    # Given
    job_id = desk.submit()
    behind = desk.submit()
    message = simple.get(timeout=2)
    assert desk.waiting_ids() == [behind]
    assert desk.redis.hlen(desk.key("unacked")) == 1
    # When
    message.reject(requeue=True)
    # Then it is there again behind the other one, and marked
    assert desk.waiting_ids() == [behind, job_id]
    desk.pop()
    again = simple.get(timeout=2)
    assert again.decode() == message.decode()
    assert again.delivery_info["redelivered"] is True
    assert desk.try_claim(job_id, new_token()).outcome is ClaimOutcome.CLAIMED
    again.ack()
    assert desk.redis.hlen(desk.key("unacked")) == 0


def test_a_consumer_that_goes_away_leaves_its_message_behind(desk: Desk, app: Celery) -> None:
    job_id = desk.submit()
    with app.connection_for_read() as connection, SimpleQueue(connection, desk.queue) as queue:
        assert queue.get(timeout=2).headers["id"] == job_id
        assert desk.waiting_ids() == []
    assert desk.waiting_ids() == [job_id]


@pytest.mark.parametrize("strange", ['a"b', "a\\b", "ü/\U0001f600", "{}}", "\x7f\t"])
def test_ids_of_any_letters_survive(desk: Desk, app: Celery, strange: str) -> None:
    desk.submit(strange)
    message = receive(app, desk.queue)
    assert message.decode()[0] == [strange]
    assert message.headers["id"] == message.properties["correlation_id"] == strange


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
def received(request: pytest.FixtureRequest, app: Celery, desk: Desk) -> Request:
    """A caller's message as the worker has it: by Celery's producer, through Redis, by kombu."""
    app.conf.result_backend = "cache+memory://"
    first = app.signature(keys.TASK_SEGMENT, args=[REQUEST], queue=desk.prefix)
    CALLERS[request.param](app, first)

    @app.task(name=keys.TASK_SEGMENT, bind=True, shared=False)
    def segment(self: Any, *args: Any) -> Any: ...

    return Request(receive(app, desk.prefix), app=app, task=segment)


def unpacked(request: Request) -> dict[str, Any]:
    """What a worker gives to its tracer: headers and, from the body, what is to follow."""
    args, kwargs, embed = request.message.decode()
    return {**request.request_dict, "args": args, "kwargs": kwargs, "is_eager": False, **embed}


def context(request: Request) -> dict[str, Any]:
    """`task.request` of a running task, as tasks.py hands it on."""
    return dict(Context(unpacked(request), called_directly=False).__dict__)


def test_a_head_and_a_tag_are_a_message(received: Request, desk: Desk) -> None:
    head = celery_head(context(received), received.args, desk.prefix)
    message = json.loads(head + '"tag"}}')
    assert message["properties"]["delivery_tag"] == "tag"


def test_a_caller_s_message_survives_the_record(received: Request, desk: Desk, app: Celery) -> None:
    """What Celery needs to answer: who asked, and what is to follow."""
    # Given
    caller = context(received)
    job_id = desk.submit(received.id, celery_head=celery_head(caller, received.args, desk.prefix))
    # When the job ends
    desk.succeed(job_id, desk.claim(job_id))
    # Then the same request comes again
    again = Request(receive(app, desk.prefix), app=app, task=received.task)
    assert (again.args, again.kwargs) == (received.args, {}) == ([REQUEST], {})
    assert again.message.decode()[2] == received.message.decode()[2]
    kept = ("id", "root_id", "parent_id", "group", "group_index", "ignore_result", "task")
    for name in (*kept, "correlation_id", "reply_to", "stamps", "stamped_headers"):
        assert again.request_dict.get(name) == received.request_dict.get(name), name
    follows = ("callbacks", "errbacks", "chain", "chord")
    assert {name: context(again).get(name) for name in follows} == {
        name: caller.get(name) for name in follows
    }


def test_what_follows_is_sent_when_the_answer_is_given(desk: Desk, app: Celery) -> None:
    """The whole way, with Celery's own tracer in the worker's place."""
    # Given
    app.conf.result_backend = "cache+memory://"
    first = app.signature(keys.TASK_SEGMENT, args=[REQUEST], queue=desk.prefix)
    then = app.signature("then", args=[1], queue=f"{desk.prefix}.then")
    also = app.signature("also", queue=f"{desk.prefix}.also")
    chain(first.set(link=also), then).apply_async()

    @app.task(name=keys.TASK_SEGMENT, bind=True, shared=False)
    def segment(self: Any, *args: Any) -> Any:
        return {"job_id": self.request.id}

    asked = Request(receive(app, desk.prefix), app=app, task=segment)
    head = celery_head(context(asked), asked.args, desk.prefix)
    job_id = desk.submit(asked.id, celery_head=head)
    # When
    desk.fail(job_id, desk.claim(job_id))
    answer = Request(receive(app, desk.prefix), app=app, task=segment)
    trace = build_tracer(segment.name, segment, app=app)
    trace(answer.id, answer.args, answer.kwargs, unpacked(answer))
    # Then
    assert receive(app, f"{desk.prefix}.then").decode()[0] == [{"job_id": job_id}, 1]
    assert receive(app, f"{desk.prefix}.also").decode()[0] == [{"job_id": job_id}]


def test_a_caller_s_answer_has_a_fresh_tag_each_time(desk: Desk) -> None:
    head = celery_head({"id": TASK_ID}, [REQUEST], desk.prefix)
    desk.submit(TASK_ID, celery_head=head)
    desk.cancel(TASK_ID)
    first = desk.redis.rpop(desk.prefix)
    desk.redis.zadd(desk.key("answers"), {TASK_ID: 1})
    assert desk.sweep().answered_again == 1
    second = desk.redis.rpop(desk.prefix)
    tags = [json.loads(text)["properties"]["delivery_tag"] for text in (first, second)]
    assert len(set(tags)) == 2
    assert first.replace(tags[0], tags[1]) == second
