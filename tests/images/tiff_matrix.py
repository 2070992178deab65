"""Every combination of layout, compression, byte order and sample type of a TIFF, with its picture.

`python tests/images/tiff_matrix.py` prints how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import imagecodecs
import numpy as np
from images.tiff_writer import ASCII, PACKERS, SHORT, Page, written
from images.variants import GRAY, HEIGHT, RGB, WIDTH, as_gray, back, by_depth, on_white
from PIL import Image

FADE = np.broadcast_to(np.arange(WIDTH)[None, :, None] * 255 // (WIDTH - 1), GRAY.shape)
FADE = FADE.astype(np.uint8)
UNASSOCIATED, ASSOCIATED = {338: (SHORT, [2])}, {338: (SHORT, [1])}


@dataclass(frozen=True)
class Kind:
    """Samples, what they show, and how far a level may be off."""

    page: Page
    pixels: np.ndarray
    tolerance: int = 0
    note: str | None = None  # a note that must be among its notes


@dataclass(frozen=True)
class File:
    name: str
    data: bytes
    kind: Kind


def _spread(samples: np.ndarray, kind: Any) -> np.ndarray:
    """8 bits over the whole range of an unsigned type, with bytes that differ.

    Multiples of 257 would be the same numbers with their bytes swapped.
    """
    step = np.iinfo(kind).max // 255
    uneven = np.arange(samples.size).reshape(samples.shape) * 37 % 100 * (step // 256)
    raised = samples.astype(np.int64) * step + np.where(samples < 128, uneven, -uneven)
    return raised.astype(kind)


def _deep(samples: np.ndarray, bits: int) -> np.ndarray:
    if bits == 16:
        return _spread(samples, np.uint16)
    return by_depth(samples, bits).astype(np.uint8 if bits <= 8 else np.uint16)


def kinds() -> dict[str, Kind]:
    out: dict[str, Kind] = {}
    for bits in (1, 2, 3, 4, 7, 8, 10, 12, 14, 16):
        stored = _deep(GRAY, bits)
        shown = as_gray(back(by_depth(GRAY, bits), bits))
        note = f"scaled from 0..{2**bits - 1} to 0..255" if bits > 8 else None
        out[f"gray u{bits}"] = Kind(Page(stored, bits, 1), shown, 0, note)
        turned = (2**bits - 1 - stored).astype(stored.dtype)
        out[f"negative u{bits}"] = Kind(Page(turned, bits, 0), shown, 0, note)
    full = as_gray(GRAY)
    for name in ("i1", "i2", "i4", "u4"):
        # What is below 128 in 8 signed bits is read by its own range; 0..255 is in no such type.
        values = (GRAY // 2 if name == "i1" else GRAY).astype(name)
        shown = as_gray((values.astype(float) * 255 / 127).round()) if name == "i1" else full
        out[f"gray {name} small"] = Kind(Page(values, 8 * values.itemsize, 1), shown, 1)
    out["gray u4 full"] = Kind(
        Page(_spread(GRAY, np.uint32), 32, 1), full, 0, "scaled from 0..4294967295 to 0..255"
    )
    signed = GRAY.astype(np.int16) - 128
    own = (GRAY.astype(float) - GRAY.min()) * 255 / (int(GRAY.max()) - int(GRAY.min()))
    low, high = int(signed.min()), int(signed.max())
    out["gray i2 signed"] = Kind(
        Page(signed, 16, 1), as_gray(own.round()), 1, f"scaled from {low}..{high} to 0..255"
    )
    unit_note = "scaled from 0..1 to 0..255"
    for name in ("f2", "f4", "f8"):
        unit = (GRAY / 255.0).astype(name)
        out[f"gray {name}"] = Kind(Page(unit, 8 * unit.itemsize, 1), full, 0, unit_note)
        out[f"negative {name}"] = Kind(Page((1 - unit).astype(name), 8 * unit.itemsize, 0), full, 1)
    holes = GRAY.astype(np.float32)
    holes[0, 0], holes[1, 1] = -9999, np.nan
    shown = full.copy()
    shown[0, 0] = shown[1, 1] = 0
    out["gray f4 nodata"] = Kind(
        Page(holes, 32, 1, tags={42113: (ASCII, b"-9999\0")}), shown, 0,
        "scaled from 0..255 to 0..255, 2 pixels without a value black",
    )  # fmt: skip
    gaps = GRAY.astype(np.int16)
    gaps[2, 2] = -32768
    shown = full.copy()
    shown[2, 2] = 0
    out["gray i2 nodata"] = Kind(Page(gaps, 16, 1, tags={42113: (ASCII, b"-32768\0")}), shown)
    for bits in (8, 16):
        scaled = "scaled from 0..65535 to 0..255" if bits == 16 else None
        stored = np.uint8 if bits == 8 else np.uint16
        rgb, fade, gray = (_deep(x, bits) for x in (RGB, FADE, GRAY))
        out[f"rgb u{bits}"] = Kind(Page(rgb, bits, 2), RGB, 0, scaled)
        out[f"rgba u{bits}"] = Kind(
            Page(np.dstack([rgb, fade]), bits, 2, tags=UNASSOCIATED), on_white(RGB, FADE), 1, scaled
        )
        share = fade / (2**bits - 1)
        out[f"rgba premultiplied u{bits}"] = Kind(
            Page(np.dstack([(rgb * share).round().astype(stored), fade]), bits, 2, tags=ASSOCIATED),
            on_white(RGB, FADE), 3, "transparency laid on white",
        )  # fmt: skip
        out[f"la u{bits}"] = Kind(
            Page(np.dstack([gray, fade]), bits, 1, tags=UNASSOCIATED),
            on_white(full, FADE),
            1,
            scaled,
        )
        out[f"la opaque u{bits}"] = Kind(
            Page(np.dstack([gray, np.full_like(gray, 2**bits - 1)]), bits, 1, tags=UNASSOCIATED),
            full,
        )
        out[f"rgb and more u{bits}"] = Kind(
            Page(np.dstack([rgb, fade]), bits, 2, tags={338: (SHORT, [0])}), RGB, 0,
            "1 channel without a meaning ignored",
        )  # fmt: skip
        inks = np.dstack([_deep(255 - RGB, bits), np.zeros_like(GRAY)]).astype(stored)
        out[f"cmyk u{bits}"] = Kind(Page(inks, bits, 5), RGB, 1, scaled)
        flat = np.broadcast_to(GRAY, (HEIGHT, WIDTH, 3)).astype(float)
        light = flat[..., :1] / 255.0
        linear = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
        star = np.where(linear > 0.008856, 116 * np.cbrt(linear) - 16, 903.3 * linear)
        levels = star / 100 * (2**bits - 1)
        zeros = np.zeros_like(levels)
        out[f"lab u{bits}"] = Kind(
            Page(np.dstack([levels, zeros, zeros]).round().astype(stored), bits, 8), full, 3,
            "converted from Lab to sRGB",
        )  # fmt: skip
        top = 255 if bits == 8 else 0xFF00
        middle = zeros + (1 << (bits - 1))
        out[f"icclab u{bits}"] = Kind(
            Page(np.dstack([star / 100 * top, middle, middle]).round().astype(stored), bits, 9),
            full,
            3,
        )
    for name in ("f2", "f4", "f8"):
        unit = (RGB / 255.0).astype(name)
        out[f"rgb {name}"] = Kind(Page(unit, 8 * unit.itemsize, 2), RGB, 0, unit_note)
    clear = np.dstack([RGB / 255.0, FADE / 255.0]).astype(np.float32)
    out["rgba f4"] = Kind(Page(clear, 32, 2, tags=UNASSOCIATED), on_white(RGB, FADE), 1)
    out["rgb u4"] = Kind(Page(_spread(RGB, np.uint32), 32, 2), RGB)
    out["rgb i2"] = Kind(Page(RGB.astype(np.int16), 16, 2), RGB, 0, "scaled from 0..255 to 0..255")
    for bits in (1, 2, 4, 8):
        table = RGB.reshape(-1, 3)[:: max(1, 300 // 2**bits)][: 2**bits]
        index = (GRAY.astype(int) % 2**bits).astype(np.uint8)
        colours = (table.astype(int) * 257).T.reshape(-1).tolist()
        out[f"palette u{bits}"] = Kind(
            Page(index, bits, 3, tags={320: (SHORT, colours)}), table[index[..., 0]]
        )
        low = table.T.reshape(-1).tolist()
        out[f"palette of 8-bit colours u{bits}"] = Kind(
            Page(index, bits, 3, tags={320: (SHORT, low)}), table[index[..., 0]]
        )
    ycc = np.asarray(Image.fromarray(RGB).convert("YCbCr"))
    out["ycbcr u8"] = Kind(Page(ycc, 8, 6, tags={530: (SHORT, [1, 1])}), RGB, 3)
    return out


def layouts_of(name: str) -> Iterator[File]:
    """Byte order x strips or tiles x planes x compression x predictor."""
    kind = kinds()[name]
    page = kind.page
    planes = (False, True) if page.samples.shape[2] > 1 else (False,)
    for order, tile, is_planar, packing in product("<>", (0, 16), planes, PACKERS):
        for predictor in _predictors(page, packing):
            changed = replace(
                page, packing=packing, tile=tile, is_planar=is_planar, predictor=predictor
            )
            said = f"{name} {order} {_layout(changed)} {packing} {predictor}"
            yield File(said, written([changed], order), kind)


def _layout(page: Page) -> str:
    return ("tiles" if page.tile else "strips") + (" planar" if page.is_planar else "")


def _predictors(page: Page, packing: str) -> tuple[int, ...]:
    if packing in ("raw", "packbits") or page.bits not in (8, 16, 32, 64):
        return (1,)
    if page.samples.dtype.kind == "f":
        return (1, 3)
    return (1, 2)


def others() -> Iterator[File]:
    """What does not cross with everything: BigTIFF, fill order, one-row strips, whole-image codecs."""
    every = kinds()
    for name, kind in every.items():
        for order in "<>":
            yield File(f"{name} {order} big", written([kind.page], order, big=True), kind)
            yield File(f"{name} {order} rows", written([replace(kind.page, rows=1)], order), kind)
            whole = replace(kind.page, rows=HEIGHT, packing="lzw")
            yield File(f"{name} {order} one strip", written([whole], order), kind)
    for name in ("gray u1", "negative u1", "gray u4", "gray u8", "rgb u8"):
        for packing in PACKERS:
            page = replace(every[name].page, fill_order=2, packing=packing)
            yield File(f"{name} fill order 2 {packing}", written([page]), every[name])


def whole_images() -> Iterator[File]:
    """Codecs whose strips and tiles are images with a header of their own."""
    every = kinds()
    every["ycbcr"] = Kind(Page(RGB, 8, 6, tags={530: (SHORT, [1, 1])}), RGB)
    codecs: dict[str, tuple[int, Callable[[np.ndarray], bytes], tuple[str, ...]]] = {
        "jpeg": (7, _jpeg, ("gray u8", "rgb u8")),
        "jpeg of ycbcr": (7, _jpeg_ycc, ("ycbcr",)),
        "jpeg 2000": (34712, _jpeg_2000, ("gray u8", "rgb u8", "gray u16", "rgb u16", "rgba u8")),
        "webp": (50001, lambda part: imagecodecs.webp_encode(part, lossless=True), ("rgb u8",)),
        "lerc": (
            34887,
            _lerc,
            ("gray u8", "gray u16", "rgb u8", "gray f4", "gray i2 small", "rgb f4"),
        ),
    }
    for codec, (number, encode, names) in codecs.items():
        for name in names:
            kind = every[name]
            if "jpeg" in codec:
                kind = replace(kind, tolerance=max(kind.tolerance, 6))
            one = kind.page.samples.shape[2] == 1 or codec in ("webp", "jpeg of ycbcr")
            orders = "<" if codec == "lerc" and kind.page.bits > 8 else "<>"
            for order, tile, is_planar in product(
                orders, (0, 16), (False,) if one else (False, True)
            ):
                page = replace(kind.page, tile=tile, is_planar=is_planar, encode=(number, encode))
                yield File(f"{name} {order} {codec} {_layout(page)}", written([page], order), kind)


def _squeezed(part: np.ndarray) -> np.ndarray:
    return part[..., 0] if part.shape[2] == 1 else part


def _jpeg(part: np.ndarray) -> bytes:
    space = {"colorspace": "RGB", "outcolorspace": "RGB"} if part.shape[2] == 3 else {}
    return imagecodecs.jpeg8_encode(_squeezed(part), level=100, subsampling="444", **space)


def _jpeg_ycc(part: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(part, level=100, subsampling="444")


def _jpeg_2000(part: np.ndarray) -> bytes:
    return imagecodecs.jpeg2k_encode(_squeezed(part), level=0, codecformat="j2k")


def _lerc(part: np.ndarray) -> bytes:
    return imagecodecs.lerc_encode(_squeezed(part), level=0)


if __name__ == "__main__":
    crossed = sum(1 for name in kinds() for _ in layouts_of(name))
    print(crossed + sum(1 for _ in others()) + sum(1 for _ in whole_images()), "files")
