"""Tokens of senders of notifications, in any of the headers that senders can set."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator, Mapping, Sequence

CHALLENGE = (
    'Bearer realm="maskq", Basic realm="maskq"'  # SNS sends its password only after a challenge
)


class Tokens:
    """The valid tokens. Without tokens every request is refused."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token.encode() for token in tokens]

    def accept(self, headers: Mapping[str, str]) -> bool:
        """Whether a valid token is in Authorization (Bearer, or the password of Basic) or X-Api-Key.

        headers: names in lower case, values in Latin-1 as in HTTP.
        """
        # All pairs are compared, so that the time reveals nothing.
        equal = [hmac.compare_digest(a, b) for a in _given(headers) for b in self._tokens]
        return any(equal)


def _given(headers: Mapping[str, str]) -> Iterator[bytes]:
    if key := headers.get("x-api-key"):
        yield key.encode("latin-1")
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    given = credentials.strip().encode("latin-1")
    if scheme.lower() == "bearer":
        yield given
    elif scheme.lower() == "basic":
        try:
            yield base64.b64decode(given, validate=True).partition(b":")[2]
        except ValueError:
            return
