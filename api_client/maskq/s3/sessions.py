"""botocore sessions that share botocore's descriptions of services, which are 2 MB of JSON for S3."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any


def new_session() -> Any:
    """A botocore session that reads environment, profile and credentials anew. Raises BotoCoreError.

    boto3's default session would keep the first credentials that it found, and is not thread-safe.
    """
    import botocore.session  # imported late, because it is slow
    from botocore.loaders import Loader, create_loader

    session = botocore.session.get_session()
    folders = create_loader(session.get_config_variable("data_path")).search_paths
    shared = Loader(folders, file_loader=_descriptions(), include_default_search_paths=False)
    session.register_component("data_loader", shared)
    return session


@cache
def _descriptions() -> _Descriptions:
    return _Descriptions()


class _Descriptions:
    """botocore's loader of JSON files, which parses each file once for all sessions of a process."""

    def __init__(self) -> None:
        from botocore.loaders import JSONFileLoader

        self._files = JSONFileLoader()
        self._parsed: dict[str, Any] = {}

    def exists(self, path: str) -> bool:
        """Whether there is such a file; path: without its ending."""
        return bool(self._files.exists(path))

    def load_file(self, path: str) -> Any:
        """The content of a file, None if there is none; path: without its ending."""
        parsed = self._parsed.get(path)
        if parsed is None and (parsed := self._files.load_file(path)) is not None:
            self._parsed[path] = parsed
        return _own_operations(parsed)


def _own_operations(description: Any) -> Any:
    """A session gets its own operations: botocore writes into them when it builds requests."""
    if description is None or "operations" not in description:
        return description
    return description | {"operations": deepcopy(description["operations"])}
