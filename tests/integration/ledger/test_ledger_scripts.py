"""The Lua scripts: they know names of keys, words of the contract and their arguments from Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from importlib import resources

import pytest
from support import ledger_harness
from support.ledger_harness import LedgerHarness

from maskq.contract import JobStatus
from maskq.contract.events import EVENT_DATA
from maskq.ledger import calls, keys, prelude
from maskq.ledger.scripts import SHARED, script, shared_text

harness = ledger_harness.harness

LUA = resources.files("maskq.ledger").joinpath("lua")
TEXTS = {
    file.name.removesuffix(".lua"): re.sub(r"--.*", "", file.read_text())
    for file in LUA.iterdir()
    if file.name.endswith(".lua")
}
NAMES = sorted(TEXTS.keys() - {*SHARED})
# Fields of a hash, and an answer about an API key, that are called as a state is.
OTHER_MEANING = {
    ("queue", "queued"), ("submit", "queued"),
    ("api_key_admit", "expired"),
}  # fmt: skip
LUA_ITSELF = {
    "cjson", "function", "if", "elseif", "and", "or", "not", "ipairs", "math", "next", "pairs", "redis",
    "return", "string", "table", "tonumber", "tostring", "unpack",
}  # fmt: skip


def evaluate(harness: LedgerHarness, code: str, *arguments: str) -> object:
    return harness.redis.eval(prelude.prelude(code) + code, 0, harness.prefix, *arguments)


@pytest.mark.parametrize("name", [*NAMES, *SHARED])
def test_a_script_holds_no_part_of_a_key(name: str) -> None:
    text = TEXTS[name].replace("cjson.encode('maskq/' .. prefix)", "")  # an event's source
    assert not re.search(r"\bprefix\b", text)


@pytest.mark.parametrize("name", [*NAMES, *SHARED])
def test_a_script_holds_no_state_and_no_event_type(name: str) -> None:
    literals = {*re.findall(r"'([^'\n]*)'", TEXTS[name])}
    states = {(name, state.value) for state in JobStatus if state.value in literals}
    assert states <= OTHER_MEANING
    assert not literals & (EVENT_DATA.keys() | {kind.removeprefix("maskq.") for kind in EVENT_DATA})


@pytest.mark.parametrize("name", NAMES)
def test_a_script_has_all_that_it_calls(name: str) -> None:
    """Redis would tell only when it comes to the line."""
    text = re.sub(r"--.*|'[^'\n]*'", "", script(name).text)
    called = {*re.findall(r"(?<![\w.])(\w+)(?:\.\w+)?\(", text)}
    constants = {*re.findall(r"\b[A-Z][A-Z_]+\b", text)} - {"ARGV"}
    defined = {
        part for names in re.findall(r"local (?:function )?([\w, ]+)", text)
        for part in names.split(", ")
    }  # fmt: skip
    assert called | constants <= {one.strip() for one in defined} | LUA_ITSELF | {"keys"}


def test_lua_and_python_have_the_same_names(harness: LedgerHarness) -> None:
    for name, pattern in keys.patterns().items():
        parts = [f"{part}-1" for part in pattern.parts]
        given = ", ".join(f"'{part}'" for part in parts)
        in_lua = evaluate(harness, f"return keys.{name}({given})")
        assert in_lua == pattern(*parts).within(harness.prefix)


def test_two_keys_never_have_one_name() -> None:
    texts = [re.sub(r"\{\w+\}", "*", each.text) for each in keys.patterns().values()]
    assert len({*texts}) == len(texts)


def test_a_key_refuses_a_wrong_number_of_parts() -> None:
    with pytest.raises(TypeError, match="model"):
        keys.ready("demo")


def test_a_new_key_needs_a_line_of_keys_py(
    harness: LedgerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "budget", keys.Pattern(":budget:{tenant}:{day}"), raising=False)
    found = evaluate(harness, "return keys.budget(ARGV[2], ARGV[3])", "acme", "monday")
    assert found == f"{harness.prefix}:budget:acme:monday"


class WithOneMore(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"


@pytest.fixture
def one_state_more(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(prelude, "JobStatus", WithOneMore)
    monkeypatch.setattr(prelude, "TERMINAL", frozenset([*WithOneMore][2:]))
    prelude.words.cache_clear()
    yield
    prelude.words.cache_clear()


@pytest.mark.usefixtures("one_state_more")
def test_a_new_terminal_state_needs_a_line_of_the_contract(harness: LedgerHarness) -> None:
    # Given a job that is all of its batch
    job_id = harness.submit(batch=calls.BatchMembership(batch_id="b", total=1))
    # When a script ends it in a state that no Lua file names
    code = shared_text() + "\nend_job(ARGV[2], REJECTED, 'error', failure(CODE_CANCELED, 'no'))"
    evaluate(harness, code, job_id)
    # Then record, event and batch all have it
    assert harness.raw(job_id)["status"] == "rejected"
    assert harness.kinds(job_id) == ["maskq.job.queued", "maskq.job.rejected"]
    (batch,) = harness.events("b")
    assert batch["data"]["rejected"] == 1
    assert harness.indexes(job_id) == {"ended"}


def test_arguments_are_given_by_their_names() -> None:
    finish = script("finish")
    assert finish.arguments == ("id", "token", "state", "payload")
    given = {"payload": 4, "id": 1, "state": 3, "token": 2}
    assert finish.in_order(given) == (1, 2, 3, 4)
    for wrong in ({**given, "more": 5}, {"id": 1}):
        with pytest.raises(TypeError, match=r"finish\.lua"):
            finish.in_order(wrong)
