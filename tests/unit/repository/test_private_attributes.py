"""A private attribute (`x._y`) is read in the module that defines it, and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = (
    "api_client/maskq",
    "worker/maskq_worker",
    "gateway/maskq_gateway",
    "standalone/maskq_standalone",
)
DOCUMENTED = {"_exit", "_replace", "_asdict", "_fields"}  # of os and of named tuples
# Of libraries that have no public way to do it; the code says why.
REMAINING = {
    "api_client/maskq/safe_http/boto3_deadline.py: client._endpoint",
    "api_client/maskq/safe_http/boto3_deadline.py: "
    "client._endpoint.http_session._pool_classes_by_scheme",
    "worker/maskq_worker/__main__.py: logging._srcfile",
    "worker/maskq_worker/broker/transport.py: self.connection._callbacks",
    "worker/maskq_worker/broker/transport.py: self.connection._deliver",
    "worker/maskq_worker/imaging/readers/jpeg/reader.py: source._new",
    "worker/maskq_worker/model/cuda/fused/cuda_operations.py: torch._addmm_activation",
    "worker/maskq_worker/imaging/readers/pillow_reader.py: image._new",
}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in {"_", *DOCUMENTED}


def _is_own_object(node: ast.expr) -> bool:
    """Whether the node is `self`, `cls`, `super()` or `type(self)`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id == "super" or (node.func.id == "type" and _is_own_object(node.args[0]))
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _defined(tree: ast.Module) -> set[str]:
    """Names that the module gives to functions, classes, variables and attributes of its objects."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case ast.Attribute(ctx=ast.Store()) if _is_own_object(node.value):
                names.add(node.attr)
    return names


def foreign_attributes(source: str) -> Iterator[str]:
    """Each `expression._name` of another module's object, and each import of a private name."""
    tree = ast.parse(source)
    own = _defined(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute() if not _is_own_object(node.value):
                if _is_private(node.attr) and node.attr not in own:
                    yield ast.unparse(node)
            case ast.ImportFrom():
                yield from (
                    f"from {node.module} import {one.name}"
                    for one in node.names
                    if _is_private(one.name)
                )


@cache
def _found() -> set[str]:
    return {
        f"{path.relative_to(ROOT)}: {found}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for found in foreign_attributes(path.read_text(encoding="utf-8"))
    }


def test_no_module_reads_a_private_attribute_of_another_one() -> None:
    new = sorted(_found() - REMAINING)
    assert not new, f"give these a public name: {new}"


def test_each_remaining_one_is_still_there() -> None:
    assert not sorted(REMAINING - _found())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("client._driver.ledger", ["client._driver"]),
        ("self._client._driver", ["self._client._driver"]),
        ("def f(self): self.session._wake.get()", ["self.session._wake"]),
        ("client._driver = driver", ["client._driver"]),
        ("from maskq.client.bulk import _digest", ["from maskq.client.bulk import _digest"]),
        ("import a; a._b()", ["a._b"]),
        ("self._ledger.run(call)", []),
        ("type(self)._job_type", []),
        ("super()._new_conn()", []),
        ("os._exit(1)", []),
        ("class A:\n def __eq__(self, other): self._x = 1; return other._x", []),
        ("from a import b as _b, c", []),
    ],
)
def test_a_foreign_private_attribute_is_found(source: str, found: list[str]) -> None:
    assert list(foreign_attributes(source)) == found
