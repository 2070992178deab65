"""Server-sent events, from the bytes of a stream."""

from __future__ import annotations

from maskq.http.request import Message


class SseParser:
    """Takes bytes as they arrive. https://html.spec.whatwg.org/multipage/server-sent-events.html"""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, part: bytes) -> list[Message]:
        """The messages that are complete now. A comment, such as a heartbeat, is none."""
        *blocks, self._rest = (self._rest + part).replace(b"\r\n", b"\n").split(b"\n\n")
        return [message for block in blocks if (message := _message(block))]


def _message(block: bytes) -> Message | None:
    fields: dict[str, list[str]] = {}
    for line in block.decode(errors="replace").split("\n"):
        name, _, value = line.partition(":")
        if name:
            fields.setdefault(name, []).append(value.removeprefix(" "))
    if not fields:
        return None
    return Message(
        id=fields.get("id", [""])[-1],
        event=fields.get("event", [""])[-1],
        data="\n".join(fields.get("data", [])),
    )
