"""Imports modules as if their source were another, to see what follows from one change.

For scripts that run in a process of their own.
"""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Mapping, Sequence
from types import CodeType, ModuleType

Changes = Mapping[str, str]  # text that occurs once in a module → what replaces it


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, changes: Changes) -> None:
        super().__init__(name, path)
        self._changes = changes

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_source(fullname) or ""
        for text, changed in self._changes.items():
            assert source.count(text) == 1, text
            source = source.replace(text, changed)
        return self.source_to_code(source.encode(), self.path)


class _Finder:
    def __init__(self, modules: Mapping[str, Changes]) -> None:
        self._modules = modules

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        changes = self._modules.get(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path) if changes else None
        if spec and changes:
            spec.loader = _Loader(name, str(spec.origin), changes)
        return spec


def change(modules: Mapping[str, Changes]) -> None:
    """From now on these modules are imported with their changes."""
    sys.meta_path.insert(0, _Finder(modules))
