"""Calls as Redis commands, and the answers to several of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from redis.exceptions import NoScriptError

from maskq.ledger.calls.base import Argument, Call
from maskq.ledger.connections.redis_url import RedisUrl
from maskq.ledger.errors import typed_errors
from maskq.ledger.keys import Key

T = TypeVar("T")


def at_once(calls: Sequence[Call[T]]) -> list[Call[T]]:
    """The same calls; those that wait in Redis return at once."""
    return [replace(c, args=c.at_once, waits_s=0.0) if c.waits_s else c for c in calls]


def command(call: Call[Any], prefix: str) -> list[str | int]:
    args = _named(call.args, prefix)
    return args if call.script is None else ["EVALSHA", call.script.sha, 0, prefix, *args]


def command_when_new(call: Call[Any], prefix: str) -> list[str | int]:
    """With the script's text, for a server that does not know the script yet."""
    text = call.script.text if call.script else ""
    return ["EVAL", text, 0, prefix, *_named(call.args_when_new or call.args, prefix)]


def _named(args: Sequence[Argument], prefix: str) -> list[str | int]:
    return [arg.within(prefix) if isinstance(arg, Key) else arg for arg in args]


def known_scripts(answers: list[Any]) -> list[Any]:
    """The same answers. Raises NoScriptError if one of them is that error."""
    for answer in answers:
        if isinstance(answer, NoScriptError):
            raise answer
    return answers


def outcomes(calls: Sequence[Call[T]], answers: list[Any], url: RedisUrl) -> list[T | Exception]:
    """The parsed answers; a call that failed has its error there."""
    outcomes: list[T | Exception] = []
    for call, answer in zip(calls, answers, strict=True):
        try:
            with typed_errors(url):
                if isinstance(answer, Exception):
                    raise answer
                outcomes.append(call.parse(answer))
        except Exception as error:  # noqa: BLE001
            outcomes.append(error)
    return outcomes
