"""Docstrings below the assignments of a class body, which Python itself does not keep."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise


class Undescribed(Exception):
    """Raised for a name that has no docstring. The text says where to write it."""


@cache
def attributes(owner: type) -> dict[str, str]:
    """Name → docstring of what the class body assigns, bases included.

    Fields of pydantic models whose description is given with `Field` have that one.
    """
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        if base.__module__.startswith("maskq"):
            found |= _own(base)
    for name, field in getattr(owner, "model_fields", {}).items():
        if field.description:
            found[name] = field.description
    return found


def describe(owner: type, name: str) -> str:
    """The docstring of one attribute. Raises Undescribed."""
    try:
        return attributes(owner)[name]
    except KeyError:
        raise Undescribed(
            f"{owner.__module__}.{owner.__name__}.{name} has no description: "
            f"write a docstring below it, then run: python -m tools.reference"
        ) from None


def _own(owner: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    (definition,) = tree.body
    statements = definition.body if isinstance(definition, ast.ClassDef) else []
    return {
        name: inspect.cleandoc(text)
        for before, after in pairwise(statements)
        if (name := _assigned(before)) and (text := _text(after))
    }


def _assigned(statement: ast.stmt) -> str | None:
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
            return name
    return None


def _text(statement: ast.stmt) -> str | None:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
    return None
