"""What `inspect`, `help` and `unittest.mock` see of the client's methods."""

from __future__ import annotations

import asyncio
import inspect
import pydoc
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock, create_autospec

import pytest

from maskq import AsyncBatch, AsyncClient, AsyncJob, AsyncResult, Batch, Client, Job, Result
from maskq.contract import SegmentRequest
from maskq.contract.options import BY_KEYWORD, Options

# Every method that is written once and runs both ways.
PAIRS = [(Client, AsyncClient), (Job, AsyncJob), (Batch, AsyncBatch), (Result, AsyncResult)]


def methods(owner: type) -> dict[str, Callable[..., Any]]:
    """Public functions of a class."""
    return {
        name: member
        for name, member in inspect.getmembers(owner, inspect.isfunction)
        if not name.startswith("_")
    }


def test_submit_shows_every_option_by_name_and_what_it_returns() -> None:
    signature = inspect.signature(Client.submit)
    assert list(signature.parameters)[:2] == ["self", "image"]
    assert set(Options.__annotations__) < set(signature.parameters)
    assert {p.kind for p in signature.parameters.values()} == {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }
    assert signature.parameters["outputs"].default == frozenset({"mask"})
    assert signature.parameters["mode"].default == "whole"
    assert (signature.return_annotation, inspect.signature(AsyncClient.submit).return_annotation) == (
        "Job",
        "AsyncJob",
    )  # fmt: skip


def test_the_defaults_shown_are_those_of_a_request() -> None:
    parameters = inspect.signature(Client.submit).parameters
    named = {"queue_ttl": "queue_ttl_s", "run_timeout": "run_timeout_s"}
    shown = {named.get(name, name): parameters[name].default for name in Options.__annotations__}
    plain = SegmentRequest(image_uri="s3://bucket/key")
    assert SegmentRequest(image_uri="s3://bucket/key", **shown) == plain


@pytest.mark.parametrize(("blocking", "awaited"), PAIRS)
def test_both_ways_have_the_same_methods_and_one_way_is_awaited(
    blocking: type, awaited: type
) -> None:
    ours, theirs = methods(blocking), methods(awaited)
    assert set(ours) == set(theirs)
    for name in ours:
        assert inspect.getdoc(theirs[name]), name
        assert not inspect.iscoroutinefunction(ours[name]), name
        assert not inspect.isgeneratorfunction(theirs[name]), name
        assert list(inspect.signature(ours[name]).parameters) == list(
            inspect.signature(theirs[name]).parameters
        )  # fmt: skip
    assert inspect.iscoroutinefunction(getattr(awaited, _an_operation(blocking)))


def _an_operation(owner: type) -> str:
    return {"Client": "submit", "Job": "wait", "Batch": "cancel", "Result": "mask"}[owner.__name__]


@pytest.mark.parametrize("owner", [owner for pair in PAIRS for owner in pair])
def test_no_signature_speaks_of_how_it_is_driven(owner: type) -> None:
    for name, method in methods(owner).items():
        shown = str(inspect.signature(method))
        assert "Flow[" not in shown, name
        if hasattr(method, "__wrapped__"):  # an operation
            assert not any(variable in shown for variable in ("JobT", "BatchT", "ResultT")), name


def test_a_mock_refuses_what_the_client_would() -> None:
    mock = create_autospec(Client, instance=True)
    mock.submit("photo.jpg", outputs={"mask"}, idempotency_key="a")
    with pytest.raises(TypeError, match="otuputs"):
        mock.submit("photo.jpg", otuputs={"mask"})
    with pytest.raises(TypeError, match="image"):
        mock.submit()
    with pytest.raises(TypeError, match="bogus"):
        mock.segment("photo.jpg", bogus=1)


async def _awaits(mock: AsyncClient) -> object:
    return await mock.get("id")


def test_a_mock_of_the_async_client_is_awaited() -> None:
    mock = create_autospec(AsyncClient, instance=True)
    assert isinstance(mock.submit, AsyncMock)
    mock.get.return_value = "the job"
    assert asyncio.run(_awaits(mock)) == "the job"


def test_help_shows_the_call_and_what_it_means() -> None:
    text = pydoc.render_doc(Client.submit, renderer=pydoc.plaintext)
    assert "submit(self, image:" in text
    assert "overlay_alpha: 'float | None' = None" in text
    assert f"overlay_alpha: {BY_KEYWORD['overlay_alpha'].meaning}" in text
    assert text.count("\n        queue_ttl: ") == 1
    assert "Raises InvalidRequest, UnknownModel, QueueFull" in text
    page = pydoc.render_doc(Client, renderer=pydoc.plaintext)
    assert "retry(self, job_id: 'str') -> 'Job'" in page


def test_a_bound_method_does_not_ask_for_itself() -> None:
    bound = Client.submit.__get__(object.__new__(Client))
    assert next(iter(inspect.signature(bound).parameters)) == "image"
