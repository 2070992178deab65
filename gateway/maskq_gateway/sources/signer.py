"""Senders of notifications that sign what they send, instead of sending a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from maskq.contract.failures import FailureCode
from maskq.errors import MaskqError


class SignatureRefused(MaskqError, ValueError):
    """The message is not signed by its sender, altered, too old, or not meant for this gateway."""

    code = FailureCode.ACCESS_DENIED


class Signer(Protocol):
    """Verifies the messages of one kind of sender. Thread-safe."""

    @property
    def is_enabled(self) -> bool:
        """Whether the settings allow any sender of this kind."""

    @property
    def enabled_by(self) -> str:
        """The setting that allows senders, and to what to set it."""

    @property
    def unsigned(self) -> str:
        """Part of the error for a request that has neither a token nor this signature."""

    def recognises(self, event: Mapping[str, Any]) -> bool:
        """Whether an event came from such a sender, if its signature is valid."""

    def verify(self, headers: Mapping[str, str], event: Mapping[str, Any]) -> None:
        """Check who sent it. Raises SignatureRefused, or StoreUnavailable to be asked again later.

        headers: of the request, names in lower case.
        """

    def handle(self, event: Mapping[str, Any]) -> bool:
        """Whether it is about the subscription, not about objects; confirms a new subscription.

        Raises as `verify`, since a request with a token was not verified.
        """
