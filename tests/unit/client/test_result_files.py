"""A result's files are opened as what the record says they are, and as nothing else."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from images.drawn import png
from PIL import EpsImagePlugin, Image

from maskq import FailureCode, Output, ResultDamaged
from maskq.client.results.files import open_image, open_scores

SIZE = (8, 4)
MODES = {
    Output.MASK: ("P", "PNG"),
    Output.OVERLAY: ("RGB", "JPEG"),
    Output.CONFIDENCE: ("L", "PNG"),
    Output.BINARY: ("1", "PNG"),
}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 4\n%%EndComments\nshowpage\n%%EOF\n"


def saved(mode: str, kind: str, size: tuple[int, int] = SIZE) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("output", MODES)
def test_what_a_worker_writes_is_opened(output: Output) -> None:
    mode, kind = MODES[output]
    image = open_image(saved(mode, kind), output, SIZE)
    assert (image.mode, image.size) == (mode, SIZE)


def test_a_mask_of_many_classes_has_16_bits() -> None:
    assert open_image(saved("I;16", "PNG"), Output.MASK, SIZE).mode == "I;16"


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (output, kind)
        for output, (_, right) in MODES.items()
        for kind in ("EPS", "GIF", "TIFF", "JPEG", "PNG", "PCX", "junk", "nothing")
        if kind != right
    ],
)
def test_other_formats_are_not_opened(
    output: Output, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow has 43 decoders; that of EPS starts Ghostscript."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it started"))
    bodies = {"EPS": EPS, "junk": b"junk" * 99, "nothing": b""}
    body = bodies[kind] if kind in bodies else saved("RGB", kind)
    with pytest.raises(
        ResultDamaged, match=f"the {output} is not a readable {MODES[output][1]} file"
    ) as raised:
        open_image(body, output, SIZE)
    assert raised.value.code is FailureCode.SOURCE_CHANGED


@pytest.mark.parametrize("output", MODES)
@pytest.mark.parametrize("size", [(8, 5), (8, 3), (7, 4), (9, 4), (4, 8)])
def test_another_size_is_refused(output: Output, size: tuple[int, int]) -> None:
    mode, kind = MODES[output]
    with pytest.raises(ResultDamaged, match=rf"{size[0]}x{size[1]} px .* says 8x4 px"):
        open_image(saved(mode, kind, size), output, SIZE)


def test_an_overlay_is_taller_by_its_legend_only() -> None:
    assert open_image(saved("RGB", "JPEG", (8, 6)), Output.OVERLAY, SIZE, legend=True).height == 6
    for output, size in ((Output.OVERLAY, (8, 3)), (Output.OVERLAY, (9, 6)), (Output.MASK, (8, 6))):
        with pytest.raises(ResultDamaged):
            open_image(saved(*MODES[output], size), output, SIZE, legend=True)


def test_another_mode_is_refused() -> None:
    with pytest.raises(ResultDamaged, match="of mode RGB; the job's record says 8x4 px of mode P"):
        open_image(saved("RGB", "PNG"), Output.MASK, SIZE)


def test_a_bomb_is_refused_by_its_header() -> None:
    huge = png(np.zeros((4, 8, 1), np.uint8), 8, 3, size=(9000, 9000))
    with pytest.raises(ResultDamaged, match="9000x9000"):
        open_image(huge, Output.MASK, SIZE)


def test_a_file_that_is_cut_short_is_refused() -> None:
    with pytest.raises(ResultDamaged, match="not a readable PNG file"):
        open_image(saved("P", "PNG")[:-30], Output.MASK, SIZE)


def test_scores_are_float32_and_whole() -> None:
    scores = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert np.array_equal(open_scores(npy(scores)), scores)


def claims(shape: tuple[int, ...]) -> bytes:
    """The header of a larger array, and 4 bytes."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(4)


@pytest.mark.parametrize(
    "body",
    [
        claims((2**40,)),
        claims((1, -1)),
        npy(np.zeros(3)),
        npy(np.zeros(3, np.float32))[:-1],
        npy(np.zeros(3, np.float32)) + b"x",
        b"\x93NUMPY\x09\x00" + bytes(200),
        b"PK\x03\x04" + bytes(200),
        b"",
    ],
    ids=["huge", "negative", "float64", "cut", "longer", "version", "zip", "empty"],
)
def test_other_arrays_are_refused(body: bytes) -> None:
    with pytest.raises(ResultDamaged, match="the logits are not"):
        open_scores(body)
