"""The messages between a worker and a decoding process, over a socket that preserves their bounds.

The process may be under an attacker's control, so what it says is checked: types, ranges and lengths.
"""

from __future__ import annotations

import socket
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from maskq.contract import FailureCode
from maskq_worker.decoding.shared_buffer import SharedBuffer

MAX_MESSAGE: Final = 2**16  # bytes
_Text = Annotated[str, Field(max_length=2000)]
_Side = Annotated[int, Field(ge=1, le=2**20)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Decode(_Message):
    """Decode the file of `length` bytes in the shared buffer."""

    kind: Literal["decode"] = "decode"
    length: int
    memory: int  # bytes that decoding may take
    pixels: int  # that this memory is enough for; 0: only read the header


class Ready(_Message):
    """The decoders are loaded."""

    kind: Literal["ready"] = "ready"


class Pixels(_Message):
    """The image takes more memory than was granted; nothing was decoded."""

    kind: Literal["pixels"] = "pixels"
    pixels: int = Field(ge=1)
    decoding_bytes: int = Field(ge=0)  # 0: what is usual for the format


class Done(_Message):
    """The pixels are in the shared buffer."""

    kind: Literal["done"] = "done"
    width: _Side
    height: _Side
    format: str = Field(max_length=20)
    notes: tuple[_Text, ...] = Field(max_length=20)
    grown: bool  # whether the process takes much more memory than when it started


class Failed(_Message):
    """The image has no pixels."""

    kind: Literal["failed"] = "failed"
    code: FailureCode
    message: _Text
    grown: bool


Answer = Ready | Pixels | Done | Failed
_ANSWERS: Final[TypeAdapter[Answer]] = TypeAdapter(Annotated[Answer, Field(discriminator="kind")])


def send(to: socket.socket, message: Decode | Answer, buffer: SharedBuffer | None = None) -> None:
    """buffer: handed over with the message, to be used from now on until the image is done."""
    body = message.model_dump_json().encode()
    if buffer is None:
        to.send(body)
    else:
        socket.send_fds(to, [body], [buffer.fd])


def receive_order(source: socket.socket) -> tuple[Decode, SharedBuffer | None]:
    """Raises EOFError if the worker has ended."""
    body, fds, _, _ = socket.recv_fds(source, MAX_MESSAGE, 1)
    if not body:
        raise EOFError
    return Decode.model_validate_json(body), SharedBuffer.opened(fds[0]) if fds else None


def receive_answer(source: socket.socket) -> Answer:
    """Raises EOFError if the process has ended, ValueError if the message is not an answer."""
    body = source.recv(MAX_MESSAGE)
    if not body:
        raise EOFError
    return _ANSWERS.validate_json(body)
