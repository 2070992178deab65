"""What a Celery producer wrote is taken, whatever its version; all else is refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context
from celery.worker import strategy
from envelopes import MALFORMED, REQUEST, changed, encoded, envelope
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu.transport.virtual import Message

from maskq.contract.tracing import TRACE_CONTEXT
from maskq.ledger.message import celery_head
from maskq_worker.broker.app import make_app
from maskq_worker.broker.envelope import (
    MASKQ,
    MAX_BODY_BYTES,
    Refused,
    is_ticket,
    milliseconds,
    segment_message,
    ticket_message,
)
from maskq_worker.process.capacity import Capacity
from maskq_worker.settings import WorkerSettings

# Written by real producers of each version: their names of processes and ids replaced, bodies decoded.
FILE = Path(__file__).parents[2] / "fixtures" / "celery_messages.json"
RECORDED = json.loads(FILE.read_text())
TASK_ID = "01920000-0000-7000-8000-000000000000"


def on_the_list(recorded: dict[str, Any]) -> bytes:
    message = recorded["message"]
    base64 = message["properties"]["body_encoding"] == "base64"
    body = encoded(message["body"]) if base64 else json.dumps(message["body"])
    return json.dumps(message | {"body": body}).encode()


def test_producers_of_every_minor_version_are_recorded() -> None:
    versions = {version.rpartition(".")[0] for version in RECORDED["kombu"]}
    assert versions == {"5.4", "5.5", "5.6", "5.7"}
    for case in {recorded["case"] for recorded in RECORDED["messages"]}:
        of = [one["celery"] for one in RECORDED["messages"] if one["case"] == case]
        assert set(itertools.chain(*of)) == set(RECORDED["kombu"]), case


@pytest.mark.parametrize(
    "recorded", RECORDED["messages"], ids=lambda one: f"{one['case']} {one['celery'][0]}"
)
def test_what_a_producer_wrote_is_taken_and_what_follows_it_is_kept(
    recorded: dict[str, Any],
) -> None:
    theirs = recorded["message"]
    ours = segment_message(on_the_list(recorded))
    caller_s, nothing, follows = ours["body"]
    assert (caller_s, nothing) == (theirs["body"][:2], {})
    assert follows.items() <= theirs["body"][2].items()
    assert set(follows) == {"callbacks", "errbacks", "chain", "chord"}
    for name in ("id", "root_id", "parent_id", "group", "group_index", "stamped_headers", "stamps"):
        assert ours["headers"].get(name) == theirs["headers"][name], name
    assert bool(ours["headers"].get("ignore_result")) == bool(theirs["headers"]["ignore_result"])
    for name in ("correlation_id", "reply_to"):
        assert ours["properties"][name] == theirs["properties"][name]
    times = {"not_before_ms": theirs["headers"]["eta"], "expires_ms": theirs["headers"]["expires"]}
    traced = {name: theirs["headers"][name] for name in TRACE_CONTEXT if name in theirs["headers"]}
    assert ours["headers"][MASKQ] == traced | {
        name: milliseconds(time) for name, time in times.items() if time
    }
    assert "eta" not in ours["headers"]
    assert "expires" not in ours["headers"]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2099-01-01T00:00:00+00:00", 4070908800000),
        ("2099-01-01T01:00:00+01:00", 4070908800000),
        ("2099-01-01T00:00:00Z", 4070908800000),
        ("2099-01-01T00:00:00", 4070908800000),  # Celery's own rule: UTC
        ("2099-01-01T00:00:00.123456", 4070908800123),
        ("1969-12-31T23:59:59+00:00", 0),
    ],
)
def test_times_are_read_as_celery_writes_them(time: str, expected: int) -> None:
    assert milliseconds(time) == expected


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_message_is_refused_in_one_short_sentence(what: str) -> None:
    with pytest.raises(Refused) as refused:
        segment_message(MALFORMED[what])
    assert 0 < len(refused.value.reason) <= 500
    assert "\n" not in refused.value.reason
    assert not is_ticket(MALFORMED[what]) or what == "a ticket on the callers' queue"


CALLERS_FAULTS = {
    "compressed": "task_compression",
    "content-type pickle": "task_serializer",
    "protocol 1": "task_protocol",
    "timelimit a text": "timelimit",
    "errbacks a number": "body.embed.errbacks",
    "three megabytes": "it has 3",
}


@pytest.mark.parametrize("what", CALLERS_FAULTS)
def test_a_caller_that_can_be_made_out_is_told_what_to_change(what: str) -> None:
    with pytest.raises(Refused, match=CALLERS_FAULTS[what]) as refused:
        segment_message(MALFORMED[what])
    answer = refused.value.answer
    assert answer is not None
    assert answer["headers"]["id"]
    assert answer["headers"][MASKQ] == {"refused": refused.value.reason}


@pytest.mark.parametrize("text", ["\\", '"', "ü", "€", "a"])
def test_the_ledger_s_answer_to_the_longest_message_gets_through(text: str) -> None:
    """It repeats the body with more escapes: without base64, but in ASCII alone."""
    # Given the longest body of such characters, as a producer in another language writes it
    request = {**REQUEST, "metadata": {"k": ""}}
    room = MAX_BODY_BYTES - 500
    request["metadata"] = {
        "k": text * (room // len(json.dumps(text, ensure_ascii=False)[1:-1].encode()))
    }
    body = json.dumps([[request], {}, {}], ensure_ascii=False).encode()
    accepted = segment_message(json.dumps(envelope() | {"body": encoded(body)}).encode())

    # When it is answered
    head = celery_head(accepted["headers"] | {"id": TASK_ID}, accepted["body"][0][0], "maskq")
    answer = segment_message((head + '"tag"}}').encode())

    # Then
    assert answer["body"][:2] == accepted["body"][:2]


def test_a_body_that_is_too_long_is_refused_and_its_caller_told() -> None:
    too_long = [["x" * MAX_BODY_BYTES], {}, {}]
    with pytest.raises(Refused, match="body: has") as refused:
        segment_message(json.dumps(envelope() | {"body": encoded(too_long)}).encode())
    assert refused.value.answer


# --- Celery takes whatever comes through --------------------------------------------------------------


class Worker:
    """Celery's own way from a message to a thread, with this worker's app and tasks."""

    def __init__(self, app: Celery) -> None:
        self.applied: list[dict[str, Any]] = []
        self.app = app
        self.app.finalize()
        self.app.loader.import_default_modules()
        consumer: Any = SimpleNamespace(
            app=app,
            hostname="w@host",
            connection_errors=(),
            event_dispatcher=None,
            timer=SimpleNamespace(call_at=self.fail),
            apply_eta_task=self.fail,
            disable_rate_limits=True,
            task_buckets={},
            on_task_request=lambda request: request.execute_using_pool(self),
            _limit_task=self.fail,
            _limit_post_eta=self.fail,
            pool=self,
            controller=SimpleNamespace(state=SimpleNamespace(revoked=())),
        )
        self.handlers = {
            name: strategy.default(app.tasks[name], app, consumer)
            for name in ("maskq.segment", "maskq.run")
        }

    def fail(self, *_: Any, **__: Any) -> None:
        raise AssertionError("a message is in Celery's timer")

    def apply_async(self, target: Any, **options: Any) -> None:
        self.applied.append(options)

    def take(self, payload: dict[str, Any]) -> dict[str, Any]:
        """What a thread is given; fails where Celery would keep the message, or lose it."""
        before = len(self.applied)
        message = Message(payload, channel=SimpleNamespace(decode_body=lambda body, _: body))
        message.accept = {"application/json", payload["content-type"]}
        self.handlers[message.headers["task"]](message, None, print, print, [])
        assert len(self.applied) == before + 1
        options = self.applied.pop()
        Context(options["args"][2])
        return options


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    app = make_app(WorkerSettings(), "demo", Capacity(1, 1, 1))
    yield Worker(app)
    app.close()


def test_celery_hands_a_ticket_and_a_caller_s_message_to_a_thread(worker: Worker) -> None:
    ticket = worker.take(ticket_message("demo"))
    assert ticket["args"][3] == [["demo"], {}, {}]
    message = segment_message(json.dumps(envelope(eta="2099-01-01T00:00:00Z")).encode())
    assert worker.take(message)["args"][3][0] == [[REQUEST], {}]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES = [
    (part, name)
    for part in ("headers", "properties")
    for name in (*envelope()[part], "compression", "unknown")
]


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.dictionaries(st.sampled_from(PLACES), json_values, max_size=2),
    embed=st.dictionaries(
        st.sampled_from(["callbacks", "errbacks", "chain", "chord", "more"]),
        json_values
        | st.lists(
            st.fixed_dictionaries(
                {"task": st.just("a") | json_values},
                optional=dict.fromkeys(("args", "kwargs", "options", "subtask_type"), json_values),
            ),
            max_size=2,
        ),
        max_size=2,
    ),
    top=st.dictionaries(
        st.sampled_from(["body", "content-type", "content-encoding", "headers", "properties"]),
        json_values,
        max_size=1,
    ),
)
def test_any_change_of_a_message_is_refused_or_taken_by_celery(
    worker: Worker, changes: dict[tuple[str, str], Any], embed: dict[str, Any], top: dict[str, Any]
) -> None:
    def change(message: dict[str, Any]) -> None:
        for (part, name), value in changes.items():
            message[part][name] = value
        message.update(top)

    raw = changed(envelope(embed=embed), change)
    try:
        message = segment_message(raw)
    except Refused as refused:
        if refused.answer is None:
            return
        message = refused.answer
    worker.take(message)


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_refused_without_another_error(raw: bytes) -> None:
    with pytest.raises(Refused):
        segment_message(raw)
