"""Prints the public surface, a fact a line: names, commands, settings, exits, events, JSON, routes.

.venv/bin/python tests/public_surface.py > tests/unit/client/public_surface.txt
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import typer
from PIL import Image
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

import maskq.contract
import maskq.http.settings
import maskq_gateway.settings  # noqa: F401 - subclasses of Settings are found once imported
import maskq_worker.webhooks  # noqa: F401 - likewise
from maskq.cli import build
from maskq.contract import Output
from maskq.contract.events import EVENT_DATA
from maskq.contract.options import PER_IMAGE, JobOptions
from maskq.settings import PREFIX, Settings, known
from maskq_gateway.asgi import create_app
from maskq_gateway.rules.rule import Rule
from maskq_gateway.settings import GatewaySettings
from maskq_worker import outputs

ROOT = Path(__file__).parents[1]
# Of maskq, though they have an __all__.
INTERNAL = ("contract", "environment", "http", "inert", "ledger", "s3", "safe_http", "view")
Lines = Iterator[str]


def lines() -> list[str]:
    """Every fact, sorted."""
    parts = (_python(), _commands(), _settings(), _exits(), _events(), _json(), _files(), _routes())
    return sorted({_plain(line) for part in parts for line in part})


def _plain(line: str) -> str:
    """Without what moves when code does, or differs between Python's versions."""
    without_modules = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z]\w*[\[\],) ]|[A-Z]\w*$)", "", line)
    return re.sub(r"Optional\[(.*)\]", r"\1 | None", without_modules)


def _python() -> Lines:
    names = [found.name for found in pkgutil.iter_modules(maskq.__path__)]
    public = [name for name in names if name not in (*INTERNAL, "__main__")]
    for module in (maskq, *(importlib.import_module(f"maskq.{name}") for name in public)):
        for name in getattr(module, "__all__", ()):
            path, found = f"python {module.__name__}:{name}", getattr(module, name)
            if inspect.isclass(found):
                yield f"{path}({', '.join(base.__name__ for base in found.__bases__)})"
                yield from _members(path, found)
            elif callable(found):
                yield path + _signature(found)


def _members(path: str, owner: type) -> Lines:
    fields = getattr(owner, "model_fields", {})  # are listed as JSON
    names = {name for name in dir(owner) if name[0] != "_"} - {*fields, "model_config"} | {
        "__init__"
    }
    # A fake inherits the surface of its client, which is listed once.
    home = "maskq.testing" if owner.__module__.startswith("maskq.testing") else "maskq"
    for name in names:
        definer = next(klass for klass in owner.__mro__ if name in vars(klass))
        if definer.__module__.startswith(home):
            member = getattr(owner, name)
            value = f" = {_value(member)}" if isinstance(member, Enum) else ""
            yield f"{path}.{name}{_signature(member) if callable(member) else value}"


class _Text(str):
    """Shown in a signature as it is."""

    __repr__ = str.__str__


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [
        one.replace(
            annotation=_annotation(one.annotation),
            default=one.empty if one.default is one.empty else _Text(_value(one.default)),
        )
        for one in signature.parameters.values()
    ]
    returns = _annotation(signature.return_annotation)
    is_async = " async" if inspect.iscoroutinefunction(function) else ""
    return str(signature.replace(parameters=parameters, return_annotation=returns)) + is_async


def _annotation(annotation: Any) -> Any:
    return _Text(annotation) if isinstance(annotation, str) else annotation


def _commands() -> Lines:
    """Types come from the functions' arguments: typer's own objects differ between its versions."""
    todo: list[tuple[str, Any]] = [("command maskq", typer.main.get_command(build()))]
    for path, command in todo:
        todo += [(f"{path} {name}", one) for name, one in getattr(command, "commands", {}).items()]
        types = typing.get_type_hints(inspect.unwrap(command.callback)) if command.callback else {}
        yield path
        for one in command.params:
            kind = inspect.formatannotation(types.get(one.name, bool))
            default = ", required" if one.required else f" = {_value(one.default)}"
            names = "/".join((*one.opts, *one.secondary_opts))
            yield f"{path} {names}: {kind}{default}{f' or {one.envvar}' if one.envvar else ''}"


def _settings() -> Lines:
    kinds = [Settings]
    for kind in kinds:
        kinds += (one for one in kind.__subclasses__() if one.__module__.startswith("maskq"))
        yield from _fields(kind, f"setting {kind.__name__} {PREFIX}", upper=True)
    for name in known().difference(*(kind.model_fields for kind in kinds)):
        yield f"setting {PREFIX}{name.upper()}"


def _exits() -> Lines:
    for path in ROOT.glob("*/maskq*/**/*.py"):
        for name, code in re.findall(
            r"^(EX(?:IT)?_\w+).* = ([^#\n]+)", path.read_text(), re.MULTILINE
        ):
            yield f"exit {name} = {code.strip()}"


def _events() -> Lines:
    return (f"event {kind}: {data.__name__}" for kind, data in EVENT_DATA.items())


def _routes() -> Lines:
    """Parameters, bodies and status codes of the HTTP API, as its OpenAPI document has them."""
    document = create_app(GatewaySettings()).openapi()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = f"http {method.upper()} {path}"
            for one in operation.get("parameters", ()):
                yield f"{name} {one['in']} {one['name']}{', required' * one['required']}"
            for kind, body in operation.get("requestBody", {}).get("content", {}).items():
                models = re.findall(r"schemas/(\w+)", json.dumps(body["schema"])[:200])
                yield f"{name} body {kind} {' | '.join(models)}".rstrip()
            yield f"{name} answers {' '.join(sorted(operation['responses']))}"


def _json() -> Lines:
    """Fields of requests, records, results, manifests, events and errors; keys of trigger rules."""
    yield from (line for line in _fields(Rule, "rule ") if line[5:].split(":")[0] not in PER_IMAGE)
    for found in pkgutil.iter_modules(maskq.contract.__path__):
        for model in vars(importlib.import_module(f"maskq.contract.{found.name}")).values():
            if inspect.isclass(model) and issubclass(model, BaseModel) and not _is_part(model):
                base = BaseModel if _is_part(model.__bases__[0]) else model.__bases__[0]
                yield f"json {model.__name__}({base.__name__})"
                yield from _fields(model, f"json {model.__name__}.")


def _is_part(model: type) -> bool:
    """Whether it is never sent by itself: its fields are listed with the models that extend it."""
    return model is JobOptions or model.__name__.startswith("_")


def _fields(model: type[BaseModel], path: str, *, upper: bool = False) -> Lines:
    """Its own, not those of its bases."""
    types = typing.get_type_hints(model)
    own = set(model.__annotations__).union(
        *(base.__annotations__ for base in model.__bases__ if _is_part(base))
    )
    for name in set(model.model_fields) & own:
        default = model.model_fields[name].get_default(call_default_factory=True)
        text = "" if default is PydanticUndefined else f" = {_value(default)}"
        yield f"{path}{name.upper() if upper else name}: {inspect.formatannotation(types[name])}{text}"


def _files() -> Lines:
    """Each output's file, and the keys of those that are JSON."""
    pixel = np.zeros((1, 1), np.uint8)
    scores = np.zeros((1, 1, 1), np.float32)
    made = SimpleNamespace(mask=pixel, confidence=pixel, uncertain=pixel > 0, logits=scores)
    image = Image.new("RGB", (1, 1))
    for one in outputs.encode(frozenset(Output), image=image, output=made, labels=["sky"]):
        yield f"file {one.filename} of {one.output.value}: {one.content_type}"
        if one.content_type == "application/json":
            yield from (f"json {one.filename} {key}" for key in _keys("", json.loads(one.body)))


def _keys(path: str, document: Any) -> Lines:
    for key, value in document.items() if isinstance(document, dict) else ():
        yield path + key
        for item in value if isinstance(value, list) else [value]:
            yield from _keys(f"{path}{key}.", item)


def _value(value: Any) -> str:
    if isinstance(value, frozenset):
        return f"{{{', '.join(map(_value, sorted(value)))}}}"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return repr(value.value if isinstance(value, Enum) else value)


if __name__ == "__main__":
    print("\n".join(lines()))
