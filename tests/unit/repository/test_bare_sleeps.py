"""Tests wait for conditions (tests/support/waiting.py). A bare sleep needs a reason in this list."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
CLOCKS = {"time", "asyncio", "anyio", "trio"}

# Files whose subject is time itself.
FREE = {"chaos", "support/waiting.py", "support/misbehaving_decoder.py", "support/s3_front.py"}

A_PEER_IS_SLOW = "the sleep plays a peer or a step that takes this long"
TIME_PASSES = "a TTL, a lease, a retention or an order of milliseconds has to pass"
OUTAGE = "a server is away for this long"
RANDOM = "the moment of a cancellation is random"
NOTHING_HAPPENS = "shows that something does not happen in this time"
IT_BEGINS = "another thread or process gets into a wait that cannot be seen from outside"
TAKES_TURNS = "the loop works between its looks"
ALLOWED = {
    "unit/client/test_process.py::"
    "TestHealth.test_heartbeat_touches_until_signs_of_life_stop": TIME_PASSES,
    "acceptance/test_broker_restart.py::test_500_jobs_over_2_workers_survive_a_killed_redis": OUTAGE,
    "integration/client/fork_scenarios.py::waiting_thread": IT_BEGINS,
    "support/uvicorn_thread.py::_Asyncio.sleep": TAKES_TURNS,
    "integration/client/fork_scenarios.py::during_an_import": A_PEER_IS_SLOW,
    "integration/client/fork_scenarios.py::event_loops.ended": IT_BEGINS,
    "integration/client/test_bulk.py::test_a_full_queue_is_waited_for_or_told": TAKES_TURNS,
    "integration/client/test_bulk.py::test_a_redis_that_is_restarted_is_waited_for": OUTAGE,
    "integration/client/test_bulk_command.py::beside_a_worker": TAKES_TURNS,
    "integration/client/test_bulk_command.py::test_masks_of_a_folder": TAKES_TURNS,
    "integration/client/test_cli_edges.py::test_a_signal_ends_it_with_the_shell_s_own_code": IT_BEGINS,
    "integration/client/test_client_cancellation.py::cancel_often": RANDOM,
    "integration/client/test_client_cancellation.py::"
    "test_no_cancellation_of_a_reader_of_events_is_lost.first_event": A_PEER_IS_SLOW,
    "integration/client/test_client_cancellation.py::"
    "test_after_cancellations_everybody_reads_the_own_answer.main": RANDOM,
    "integration/client/test_client_cancellation.py::"
    "test_a_cancelled_submission_is_whole_or_not_there.main": NOTHING_HAPPENS,
    "integration/client/test_client_loops.py::canceled_soon": IT_BEGINS,
    "integration/client/test_client_loops.py::test_a_loop_that_ends_ends_its_waits.leave": IT_BEGINS,
    "integration/client/test_client_waits.py::"
    "test_a_wait_that_begins_while_another_one_subscribes_is_subscribed_too.slowly": A_PEER_IS_SLOW,
    "integration/client/test_failover.py::"
    "test_leases_that_ran_out_meanwhile_are_not_reaped": TIME_PASSES,
    "integration/client/test_inert_output.py::World._deliver": TAKES_TURNS,
    "integration/client/test_steering.py::test_what_may_be_tried_again": TIME_PASSES,
    "integration/client/test_steering.py::test_list_catches_up_with_what_ended": TIME_PASSES,
    "integration/client/test_steering.py::test_events_can_be_asked_for_by_type_and_job": TIME_PASSES,
    "integration/client/test_tenants.py::"
    "test_what_is_old_of_a_tenant_is_erased_and_the_rest_is_counted": TIME_PASSES,
    "integration/gateway/test_event_feed.py::follow": A_PEER_IS_SLOW,
    "integration/gateway/test_event_feed.py::"
    "test_a_follower_that_lost_events_is_told.run": TAKES_TURNS,
    "integration/gateway/test_event_feed.py::"
    "test_events_that_come_together_share_a_page_where_followers_are_many.run": TIME_PASSES,
    "integration/gateway/test_event_feed.py::"
    "test_what_others_get_does_not_make_a_waiting_follower_fall_behind.run": TAKES_TURNS,
    "integration/gateway/test_trigger_sqs.py::test_with_the_ledger_away_messages_wait_for_it": OUTAGE,
    "integration/gateway/test_trigger_sqs.py::"
    "test_the_queue_of_jobs_is_full_until_there_is_room": NOTHING_HAPPENS,
    "integration/stack/test_stack.py::"
    "TestUp.test_goes_on_without_its_terminal_under_nohup": NOTHING_HAPPENS,
    "integration/stack/test_stack.py::"
    "TestUp.test_second_signal_does_not_wait_for_a_worker": IT_BEGINS,
    "integration/worker/test_dripping_receivers.py::"
    "test_thousands_of_names_of_one_receiver_are_four_calls_at_a_time": TAKES_TURNS,
    "integration/worker/test_pipeline.py::test_the_stages_are_all_of_a_job": A_PEER_IS_SLOW,
    "unit/gateway/test_gateway_http.py::test_an_answer_that_nobody_reads_is_given_up": A_PEER_IS_SLOW,
    "unit/worker/test_circuit_breaker.py::"
    "test_while_all_answer_nobody_waits_and_nothing_is_probed": NOTHING_HAPPENS,
    "unit/worker/test_circuit_breaker.py::"
    "test_a_long_transfer_is_not_a_store_that_hangs": A_PEER_IS_SLOW,
    "unit/worker/test_read_write_lock.py::"
    "test_a_suspect_waits_for_the_others_and_keeps_new_ones_out.suspect": A_PEER_IS_SLOW,
    "unit/worker/test_read_write_lock.py::"
    "test_a_suspect_waits_for_the_others_and_keeps_new_ones_out": IT_BEGINS,
}


def sleeps_in(node: ast.AST, within: tuple[str, ...] = ()) -> Iterator[str]:
    """The qualified name of each function that sleeps."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from sleeps_in(child, (*within, child.name))
            continue
        if isinstance(child, ast.Call) and is_sleep(child.func):
            yield ".".join(within)
        yield from sleeps_in(child, within)


def is_sleep(function: ast.expr) -> bool:
    match function:
        case ast.Attribute(value=ast.Name(id=module), attr="sleep"):
            return module in CLOCKS
        case ast.Name(id="sleep"):
            return True
    return False


@cache
def found() -> set[str]:
    names: set[str] = set()
    for path in TESTS.rglob("*.py"):
        file = path.relative_to(TESTS).as_posix()
        if file.partition("/")[0] in FREE or file in FREE:
            continue
        text = path.read_text()
        if "sleep" in text:
            names |= {f"{file}::{name}" for name in sleeps_in(ast.parse(text))}
    return names


def test_every_bare_sleep_in_a_test_has_a_reason() -> None:
    new = found() - ALLOWED.keys()
    assert not new, f"wait for a condition (tests/support/waiting.py), or give a reason: {new}"
    gone = ALLOWED.keys() - found()
    assert not gone, f"take these out of the list: {gone}"


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("def f():\n    time.sleep(1)", ["f"]),
        ("async def f():\n    while True:\n        await asyncio.sleep(1)", ["f"]),
        ("class C:\n    def m(self):\n        lambda: (sleep(1), 2)", ["C.m"]),
        ("from time import sleep\nsleep(1)", [""]),
        ("child.sleep(1)", []),
    ],
)
def test_a_sleep_is_found_wherever_it_stands(code: str, names: list[str]) -> None:
    assert list(sleeps_in(ast.parse(code))) == names
