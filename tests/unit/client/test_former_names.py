"""Options under their former names still work, and say so once."""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest

from maskq import AsyncClient, Client
from maskq.cli import build
from maskq.client.operations.former_names import FORMER_NAMES, accept_former_names
from maskq.errors import InvalidRequest
from maskq.settings import Settings

NOW = "room_timeout is now called queue_full_timeout"


@accept_former_names
def submit(image: str, *, queue_full_timeout: float | None = 0.0) -> tuple[str, float | None]:
    return image, queue_full_timeout


@accept_former_names
async def submit_async(image: str, *, queue_full_timeout: float = 0.0) -> tuple[str, float]:
    return image, queue_full_timeout


@accept_former_names
async def submit_each(image: str, *, queue_full_timeout: float = 0.0) -> AsyncIterator[float]:
    yield queue_full_timeout


def old(value: float | None) -> dict[str, Any]:
    return {"room_timeout": value}


@pytest.mark.parametrize("value", [2.5, None])
def test_a_former_name_means_the_current_one_and_warns_at_the_callers_line(
    value: float | None,
) -> None:
    with pytest.warns(DeprecationWarning, match=NOW) as caught:
        assert submit("a", **old(value)) == ("a", value)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_coroutine_function_stays_one() -> None:
    assert inspect.iscoroutinefunction(submit_async)
    with pytest.warns(DeprecationWarning, match=NOW):
        assert asyncio.run(submit_async("a", **old(2.5))) == ("a", 2.5)


def test_an_async_iterator_stays_one() -> None:
    async def values() -> list[float]:
        return [value async for value in submit_each("a", **old(2.5))]

    with pytest.warns(DeprecationWarning, match=NOW):
        assert asyncio.run(values()) == [2.5]


def test_a_current_name_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert submit("a", queue_full_timeout=1.0) == ("a", 1.0)


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="give only queue_full_timeout"):
        submit("a", queue_full_timeout=1.0, **old(2.0))


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("method", ["submit", "submit_many", "submit_each", "segment"])
def test_each_method_that_submits_takes_the_former_name_and_shows_the_current_one(
    client: type, method: str
) -> None:
    function = getattr(client, method)
    assert FORMER_NAMES["room_timeout"] in inspect.signature(function).parameters
    assert "room_timeout" not in inspect.signature(function).parameters
    made = client(Settings())
    with pytest.warns(DeprecationWarning, match=NOW) as caught, pytest.raises(InvalidRequest):
        _run(function(made, [], model="", **old(0.0)))
    assert len(caught) == 1


def test_the_command_line_takes_the_former_flag_and_names_the_current_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["submit", "a", "b", "--idempotency-key", "k", "--room-timeout", "1"]
    with pytest.raises(InvalidRequest, match="names one job"):
        build()(arguments, standalone_mode=False)
    assert "--room-timeout is now called --queue-full-timeout" in capsys.readouterr().err


def test_help_shows_the_current_flag_only(capsys: pytest.CaptureFixture[str]) -> None:
    build()(["submit", "--help"], standalone_mode=False)
    text = capsys.readouterr().out
    assert "--queue-full-timeout" in text
    assert "--room-timeout" not in text


def _run(made: Any) -> None:
    async def drain() -> None:
        if inspect.isasyncgen(made):
            _ = [one async for one in made]
        else:
            await made

    if inspect.iscoroutine(made) or inspect.isasyncgen(made):
        asyncio.run(drain())
    else:
        list(made)
