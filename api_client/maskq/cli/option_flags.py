"""The options of a job as flags of a command, made from `JobOptions`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, TypeVar, cast

import typer

from maskq.contract.options import OPTIONS, Option, Options
from maskq.errors import InvalidRequest

_FLAGS = tuple(option for option in OPTIONS if not option.is_per_image)


CommandT = TypeVar("CommandT", bound=Callable[..., None])


def with_job_flags(command: CommandT) -> CommandT:
    """Decorate a command: typer sees a flag for each option of a job instead of its `**flags`."""
    signature = inspect.signature(command, eval_str=True)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    arguments = [one for one in own if one.default is one.empty]
    flags = [one for one in own if one.default is not one.empty]
    parameters = [*arguments, *map(_parameter, _FLAGS), *flags]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return command


def options_of(flags: Mapping[str, Any]) -> Options:
    """The options that the flags ask for. Raises InvalidRequest for metadata that is not NAME=VALUE."""
    given: dict[str, Any] = {}
    for option in _FLAGS:
        value = flags[option.keyword]
        if option.kind is dict:
            given[option.keyword] = dict(_pair(option.flag, entry) for entry in value or ())
        elif option.kind is not frozenset:
            given[option.keyword] = value
        elif value:
            given[option.keyword] = frozenset(value)
    return cast("Options", given)


def _parameter(option: Option) -> inspect.Parameter:
    is_list = option.kind in (frozenset, dict)
    return inspect.Parameter(
        option.keyword,
        inspect.Parameter.KEYWORD_ONLY,
        default=None if is_list else option.default,
        annotation=Annotated[_type(option), typer.Option(option.flag, help=_help(option))],
    )


def _type(option: Option) -> Any:
    if option.kind in (frozenset, dict):
        return list[str] | None
    kind = str if issubclass(option.kind, StrEnum) else option.kind
    return kind | None if option.default is None else kind


def _help(option: Option) -> str:
    if option.kind is dict:
        return f"{option.meaning} NAME=VALUE; may be repeated."
    return f"{option.meaning} May be repeated." if option.kind is frozenset else option.meaning


def _pair(flag: str, entry: str) -> tuple[str, str]:
    name, equals, value = entry.partition("=")
    if not equals:
        raise InvalidRequest(f"{flag} {entry!r} is not NAME=VALUE")
    return name, value
