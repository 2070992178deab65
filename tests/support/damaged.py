"""Bytes that begin as an image does, which clients submit, and that no worker can decode."""

from __future__ import annotations


def damaged(text: str = "") -> bytes:
    """The first bytes of a PNG, and some text."""
    return b"\x89PNG\r\n\x1a\n" + text.encode()
