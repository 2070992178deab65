"""The structure of the four packages: no import cycles, small files, small folders, standard words."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = {
    "maskq": ROOT / "api_client",
    "maskq_worker": ROOT / "worker",
    "maskq_gateway": ROOT / "gateway",
    "maskq_standalone": ROOT / "standalone",
}
LONGEST_FILE = 350  # lines
LARGEST_FOLDER = 12  # Python modules
# Words of the first versions that only their author understood, and what replaced them.
OLD_NAMES = {
    "Manner": "SubmitOptions",
    "settled": "outcomes",
    "in_doubt": "unconfirmed_job_ids, may_be_committed",
    "Room": "QueueFullBackoff, MemoryBudget",
    "Patience": "OutageTolerance",
    "Endings": "CompletionCursor",
    "Until": "WaitFor",
    "Pause": "Sleep",
    "Many": "Pipeline",
    "Blocking": "RunBlocking",
    "_Pace": "Deadline",
    "Wanted": "EventFilter",
    "places": "locations",
    "S3Place": "S3Uri",
    "shown": "redact, one_line",
    "mistakes": "validation",
    "BatchPlace": "BatchMembership",
    "Gate": "ReadWriteLock",
    "Outage": "StoreCircuitBreaker",
    "intake": "callers_queue, celery_callers",
    "Held": "HeldJob",
    "Lost": "LeaseLost",
    "fast_store": "obstore_client",
    "outbound": "safe_http",
    "Ending": "Outcome, PendingBatch",
    "InFlight": "BatchSlots",
    "give_back": "trim_malloc, release",
    "sizes": "capacity",
    "Reference": "TransformersBackend",
    "Rewritten": "NativeBackend",
    "masks_beside": "thread_safe_masks",
    "rectangles": "supports_rectangles",
    "taps": "interpolation",
    "Scored": "PendingOutput",
    "crowded": "has_backlog",
    "on_forward": "heartbeat",
    "Fused": "TritonMaskKernel",
    "Drawn": "DeviceMask",
    "Look": "OverlayStyle",
    "Beat": "Heartbeat",
    "tether": "parent_death",
    "Door": "Authorizer",
    "loops": "loop_guard",
    "turns": "shares",
    "unready": "remove_ready",
    "unhold": "drop_lease",
    "Desk": "LedgerHarness",
    "showcase": "demo_run",
    "room_timeout": "queue_full_timeout",
}
# Public names of the last version, which still work and warn.
ALIASES: set[tuple[str, str]] = set()


def modules() -> Iterator[Path]:
    for name, folder in PACKAGES.items():
        yield from sorted((folder / name).rglob("*.py"))


def test_no_file_imports_itself_through_others() -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    assert (
        list(
            cycles({name: graph.find_modules_directly_imported_by(name) for name in graph.modules})
        )
        == []
    )


def cycles(imports: dict[str, set[str]]) -> Iterator[list[str]]:
    """Groups of modules that import one another, found by Tarjan's algorithm."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = lowest[name] = len(index)
        stack.append(name)
        for imported in imports[name]:
            if imported not in index:
                visit(imported)
            if imported in stack:
                lowest[name] = min(lowest[name], lowest[imported])
        if lowest[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in imports:
        if name not in index:
            visit(name)
    yield from found


def test_cycles_are_found() -> None:
    assert list(cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}})) == [["b", "c"]]


def test_no_file_is_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules()
    }
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_folder_is_full() -> None:
    folders = Counter(str(path.parent.relative_to(ROOT)) for path in modules())
    assert {folder: count for folder, count in folders.items() if count > LARGEST_FOLDER} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_private_words_of_the_first_versions_are_gone(package: str) -> None:
    found = {
        (name, f"{path.relative_to(ROOT)}:{line}")
        for path in sorted((PACKAGES[package] / package).rglob("*.py"))
        for name, line in names(path)
        if name in OLD_NAMES and (path.stem, name) not in ALIASES
    }
    assert {(name, where, OLD_NAMES[name]) for name, where in found} == set()


def names(path: Path) -> Iterator[tuple[str, int]]:
    """Names of the module, its classes, functions and attributes."""
    yield path.stem, 1
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case (
                ast.ClassDef(name=name)
                | ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
            ):
                yield name, node.lineno
            case ast.Attribute(attr=name):
                yield name, node.lineno
            case _:
                continue
        if isinstance(node, ast.ClassDef):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield field.target.id, field.lineno
