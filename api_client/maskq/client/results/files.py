"""Decoding a result's files, after checking that they match the job's record."""

from __future__ import annotations

import io
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from maskq.contract import Output
from maskq.contract.outputs import FILES
from maskq.errors import ResultDamaged

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image


@dataclass(frozen=True, slots=True)
class _Kind:
    format: str  # the only Pillow decoder that may read the bytes
    modes: tuple[str, ...]


_KINDS: Final = {
    Output.MASK: _Kind("PNG", ("P", "I;16")),
    Output.OVERLAY: _Kind("JPEG", ("RGB",)),
    Output.CONFIDENCE: _Kind("PNG", ("L",)),
    Output.BINARY: _Kind("PNG", ("1",)),
    Output.UNCERTAIN: _Kind("PNG", ("1",)),
}

_PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_PNG_END: Final = b"IEND\xaeB`\x82"


def refuse_damaged(body: bytes, output: Output, size: tuple[int, int]) -> None:
    """Raise ResultDamaged unless the bytes are a whole file of the output's kind.

    size: width and height in the record, which a PNG must have. Pixels are not decoded.
    """
    kind = _KINDS[output].format if output in _KINDS else Path(FILES[output].name).suffix
    match kind:
        case "PNG":
            is_whole = body.startswith(_PNG_START) and body.endswith(_PNG_END)
            found = struct.unpack(">II", body[16:24]) if is_whole else None
            if found not in (None, size):
                raise ResultDamaged(
                    f"the {output} is {found[0]}x{found[1]} px; the job's record says "
                    f"{size[0]}x{size[1]} px"
                )
        case "JPEG":
            is_whole = body.startswith(b"\xff\xd8\xff") and body.endswith(b"\xff\xd9")
        case ".json":
            is_whole = _is_json(body)
        case _:
            is_whole = body.startswith(b"\x93NUMPY")
    if not is_whole:
        raise ResultDamaged(f"the {output} is not a complete {kind.strip('.')} file")


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def open_image(
    body: bytes, output: Output, size: tuple[int, int], *, legend: bool = False
) -> PIL.Image.Image:
    """The pixels of an output that is an image.

    size: width and height in the record; legend: whether an overlay has a legend below it.
    Raises ResultDamaged for another format, mode or size, or if the bytes cannot be decoded.
    """
    from PIL import Image

    kind = _KINDS[output]
    try:
        image = Image.open(io.BytesIO(body), formats=[kind.format])
        taller = legend and output is Output.OVERLAY and image.height > size[1]
        fits = image.size == size or (taller and image.width == size[0])
        if not fits or image.mode not in kind.modes:
            raise ResultDamaged(
                f"the {output} is {image.width}x{image.height} px of mode {image.mode}; the job's "
                f"record says {size[0]}x{size[1]} px of mode {' or '.join(kind.modes)}"
            )
        image.load()
    except ResultDamaged:
        raise
    except Exception as error:  # decoders raise any exception on malformed bytes
        raise ResultDamaged(
            f"the {output} is not a readable {kind.format} file: {error}"
        ) from error
    return image


def open_scores(body: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The array in an .npy file. Raises ResultDamaged unless it is complete and float32."""
    import numpy as np

    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, _, dtype = read[version](stream)
        # Checked before numpy allocates the array: the header may claim any size.
        if dtype != np.float32 or math.prod(shape) * 4 != len(body) - stream.tell():
            raise ValueError(f"{dtype} of shape {shape} in {len(body)} bytes")
        stream.seek(0)
        scores: np.ndarray[Any, np.dtype[np.float32]] = np.load(stream, allow_pickle=False)
    except Exception as error:  # numpy's parser raises many types
        raise ResultDamaged(f"the logits are not a complete float32 array: {error}") from error
    return scores
