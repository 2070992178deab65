"""Whether a fax-coded strip holds all its rows: its decoder leaves blank what it cannot decode.

It stops at the first code that makes no sense, so that a last row with ink proves all others. Where
the last row is blank, a row with ink is coded behind it: a decoder that comes so far shows it there.
"""

from __future__ import annotations

from typing import Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

_FAX_4: Final = 4  # compression
_END: Final = "000000000001" * 2  # of a block
_INK: Final = "001" + "00110101" + "010" + "1"  # a row of one black pixel, below a blank one
_TAIL: Final = 16  # bytes in which the end of the block is looked for


def holds_all_rows(body: bytes, block: NDArray[np.bool_], compression: int) -> bool:
    """False where it cannot be told.

    Args:
        body: the coded strip, its bits from the left.
        block: (rows, columns), what was decoded; True is ink.
        compression: 2, 3 or 4.
    """
    rows, columns = block.shape
    if block[-1].any():
        return True
    if compression != _FAX_4:
        return False  # those without an end to look for
    tail = "".join(f"{byte:08b}" for byte in body[-_TAIL:])
    place = tail.rfind(_END)
    if place >= 0:
        ends = [place]
    else:
        paddings = [padding for padding in range(8) if tail.endswith("0" * padding)]
        ends = [len(tail) - padding for padding in paddings]
    return any(_shows_ink(body[:-_TAIL], tail[:end] + _INK + _END, rows, columns) for end in ends)


def _shows_ink(head: bytes, bits: str, rows: int, columns: int) -> bool:
    bits += "0" * (-len(bits) % 8)
    tail = int(bits, 2).to_bytes(len(bits) // 8, "big")
    decoded = imagecodecs.ccittfax4_decode(head + tail, rows + 1, columns).reshape(rows + 1, -1)
    return bool(decoded[rows, 0]) and not decoded[rows, 1:].any()
