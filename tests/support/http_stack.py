"""Stacks that serve the HTTP API, for tests whose clients reach them over HTTP (make http-test)."""

from __future__ import annotations

from functools import partialmethod

import pytest


def is_over_http(config: pytest.Config) -> bool:
    """Whether clients call the gateway of a whole stack, where a test does not choose."""
    return bool(config.getoption("--transport") == "http")


def serve_http_api() -> None:
    """Have every `Stack` of this process start a gateway."""
    from maskq_standalone.stack import Stack

    Stack.__init__ = partialmethod(Stack.__init__, http_api=True)  # type: ignore[method-assign,assignment]
