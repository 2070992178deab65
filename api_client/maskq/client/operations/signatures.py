"""Operations as functions with signatures that `help`, `inspect` and `create_autospec` can read."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_origin

from maskq.contract.options import BY_KEYWORD, Options

_FLOW = re.compile(r"Flow\[(.*)\]")
_OPTIONS = "Unpack[Options]"  # the annotation of `**options`
_MEANINGS = "\n".join(f"    {name}: {option.meaning}" for name, option in BY_KEYWORD.items())


def as_method(owner: type, flow: Callable[..., Any], *, awaited: bool) -> Callable[..., Any]:
    """The function that drives `flow` for an object of `owner`, with the signature callers see."""
    method: Callable[..., Any]
    if awaited:

        async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await self._driver.drive(flow(self, *args, **kwargs))

    else:

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            return self._driver.drive(flow(self, *args, **kwargs))

    functools.update_wrapper(method, flow)
    method.__qualname__ = f"{owner.__qualname__}.{flow.__name__}"
    describe(owner, method)
    return method


def describe(owner: type, method: Callable[..., Any]) -> None:
    """Set a method's signature: each option by name, and the type that its caller gets."""
    signature = inspect.signature(method)
    if any(parameter.annotation == _OPTIONS for parameter in signature.parameters.values()):
        method.__doc__ = f"{inspect.getdoc(method)}\n\nOptions:\n{_MEANINGS}"
    parameters = [
        one for parameter in signature.parameters.values() for one in _expanded(parameter)
    ]
    returns = signature.return_annotation
    if isinstance(returns, str):
        if flow := _FLOW.fullmatch(returns):
            returns = flow[1]
        for variable, argument in _type_arguments(owner).items():
            returns = re.sub(rf"\b{variable}\b", argument, returns)
    described = signature.replace(parameters=parameters, return_annotation=returns)
    method.__signature__ = described  # type: ignore[attr-defined]


def _expanded(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """`**options: Unpack[Options]` as keyword parameters; any other parameter unchanged."""
    if parameter.annotation != _OPTIONS:
        yield parameter
        return
    for keyword, annotation in Options.__annotations__.items():
        yield inspect.Parameter(
            keyword,
            inspect.Parameter.KEYWORD_ONLY,
            default=BY_KEYWORD[keyword].default,
            annotation=annotation.__forward_arg__,
        )


def _type_arguments(owner: type) -> dict[str, str]:
    """The types that `owner` gives to the type variables of its generic bases, by name."""
    found: dict[str, str] = {}
    for klass in owner.__mro__:
        for base in getattr(klass, "__orig_bases__", ()):
            variables = getattr(get_origin(base), "__parameters__", ())
            arguments = get_args(base)
            if variables and len(variables) == len(arguments):
                for variable, argument in zip(variables, arguments, strict=True):
                    if isinstance(argument, type):
                        found.setdefault(variable.__name__, argument.__name__)
    return found
