"""A stack without workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from maskq_standalone.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Without workers; shared by the tests that leave it as it is."""
    directory = tmp_path_factory.mktemp("stack")
    with Stack(directory, workers=0, pinned=True) as running:
        yield running
