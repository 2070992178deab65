"""One small file of every kind that is accepted, with the pixels a viewer would show."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from images.drawn import bmp, chunk, colours, gif, page, png, tiff, tiled
from PIL import Image

RGB = colours()
GRAY = RGB[:, :, :1]
HEIGHT, WIDTH = RGB.shape[:2]
# Linear sRGB to XYZ under D50, as the profiles of sRGB have it.
SRGB_TO_XYZ = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)
# Linear Display P3 to XYZ under D50.
P3_TO_XYZ = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)


@dataclass(frozen=True)
class Variant:
    data: bytes
    pixels: np.ndarray  # (H, W, 3) uint8
    tolerance: int = 0  # levels a single sample may be off
    notes: tuple[str, ...] = ()
    format: str = ""


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(samples: np.ndarray = RGB) -> Image.Image:
    return Image.fromarray(samples)


def as_gray(gray: np.ndarray) -> np.ndarray:
    """(H, W, 1) or (H, W) to (H, W, 3)."""
    return np.repeat(gray.reshape(*gray.shape[:2], 1), 3, axis=2).astype(np.uint8)


def on_white(samples: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.reshape(*alpha.shape[:2], 1) / 255.0
    return (samples * share + 255 * (1 - share)).round().astype(np.uint8)


def encoded(linear: np.ndarray) -> np.ndarray:
    """Linear light 0..1 to sRGB levels."""
    clipped = linear.clip(0, 1)
    curve = np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)
    return (curve * 255).round().astype(np.uint8)


def light(levels: np.ndarray, to_xyz: np.ndarray, gamma: float) -> np.ndarray:
    """Levels of another RGB to sRGB levels, as colour theory has it."""
    xyz = (levels / 255.0) ** gamma @ to_xyz.T
    return encoded(xyz @ np.linalg.inv(SRGB_TO_XYZ).T)


def by_depth(samples: np.ndarray, depth: int) -> np.ndarray:
    """8 bits to `depth`; going back by `* 255 / (2**depth - 1)` loses what `depth` cannot hold."""
    return (samples.astype(int) * (2**depth - 1) + 127) // 255


def back(samples: np.ndarray, depth: int) -> np.ndarray:
    return (samples * 255.0 / (2**depth - 1)).round().astype(np.uint8)


SCALED = ("scaled from 0..65535 to 0..255",)
LAID = ("transparency laid on white",)


def jpegs() -> dict[str, Variant]:
    fine: dict[str, Any] = {"quality": 100, "subsampling": 0}
    inks = np.dstack([RGB, GRAY // 2])  # C, M, Y, K: much of it dark
    naive = ((255 - inks[:, :, :3].astype(int)) * (255 - inks[:, :, 3:].astype(int)) / 255).round()
    cmyk = Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes())
    # With Adobe's transform 2, C, M, Y lie in the file as YCbCr, as if they were R, G, B.
    ycc = np.asarray(picture(255 - RGB).convert("YCbCr"))
    ycck = saved(
        Image.frombytes("CMYK", (WIDTH, HEIGHT), np.dstack([255 - ycc, 255 - GRAY]).tobytes()),
        "JPEG", **fine,
    )  # fmt: skip
    adobe = ycck.index(b"Adobe") + 11  # 'transform'
    ycck = ycck[:adobe] + b"\x02" + ycck[adobe + 1 :]
    second = picture(RGB[::-1])
    return {
        "jpeg": Variant(saved(picture(), "JPEG", **fine), RGB, 4),
        "jpeg progressive": Variant(saved(picture(), "JPEG", progressive=True, **fine), RGB, 4),
        "jpeg restart markers": Variant(
            saved(picture(), "JPEG", restart_marker_blocks=1, **fine), RGB, 4
        ),
        "jpeg rgb": Variant(saved(picture(), "JPEG", keep_rgb=True, **fine), RGB, 3),
        "jpeg gray": Variant(saved(picture(GRAY[:, :, 0]), "JPEG", quality=100), as_gray(GRAY), 3),
        "jpeg cmyk": Variant(saved(cmyk, "JPEG", **fine), naive.astype(np.uint8), 5),
        "jpeg ycck": Variant(ycck, (RGB * (GRAY / 255.0)).round().astype(np.uint8), 5),
        "jpeg mpo": Variant(
            saved(picture(), "MPO", save_all=True, append_images=[second], **fine),
            RGB, 4, ("first of 2 frames",), "MPO",
        ),
    }  # fmt: skip


def pngs() -> dict[str, Variant]:
    out = {}
    for depth in (1, 2, 4, 8, 16):
        gray = by_depth(GRAY, depth)
        notes = SCALED if depth == 16 else ()
        out[f"png gray {depth}"] = Variant(
            png(gray, depth, 0), as_gray(back(gray, depth)), 0, notes
        )
        out[f"png gray {depth} interlaced"] = Variant(
            png(gray, depth, 0, interlaced=True), as_gray(back(gray, depth)), 0, notes
        )
        key = int(gray[3, 5, 0])
        alpha = np.where(gray == key, 0, 255)
        out[f"png gray {depth} with a transparent level"] = Variant(
            png(gray, depth, 0, before=chunk(b"tRNS", struct.pack(">H", key))),
            on_white(as_gray(back(gray, depth)), alpha), 0, notes + LAID,
        )  # fmt: skip
    for depth in (1, 2, 4, 8):
        palette = colours(16, 16).reshape(-1, 3)[: 2**depth]
        index = (GRAY.astype(int) % len(palette)).astype(np.uint8)
        table = chunk(b"PLTE", palette.tobytes())
        out[f"png palette {depth}"] = Variant(
            png(index, depth, 3, before=table), palette[index[..., 0]]
        )
        alpha = np.arange(len(palette)) * 255 // (len(palette) - 1)
        out[f"png palette {depth} with alpha, interlaced"] = Variant(
            png(index, depth, 3, before=table + chunk(b"tRNS", bytes(alpha.tolist())), interlaced=True),
            on_white(palette[index[..., 0]], alpha[index]), 1, LAID,
        )  # fmt: skip
    deep = by_depth(RGB, 16)
    key = deep[3, 5]
    alpha = np.where((deep == key).all(axis=2, keepdims=True), 0, 255)
    fade = np.broadcast_to(np.arange(WIDTH)[None, :, None] * 255 // (WIDTH - 1), GRAY.shape)
    for depth, notes in ((8, ()), (16, SCALED)):
        samples = RGB if depth == 8 else deep
        out[f"png rgb {depth}"] = Variant(png(samples, depth, 2), RGB, 0, notes)
        out[f"png rgb {depth} interlaced"] = Variant(
            png(samples, depth, 2, interlaced=True), RGB, 0, notes
        )
        out[f"png rgb {depth} with a transparent colour"] = Variant(
            png(samples, depth, 2, before=chunk(b"tRNS", struct.pack(">3H", *samples[3, 5]))),
            on_white(RGB, alpha), 0, notes + LAID,
        )  # fmt: skip
        layers = by_depth(fade, depth)
        out[f"png gray alpha {depth}"] = Variant(
            png(np.dstack([samples[:, :, :1], layers]), depth, 4),
            on_white(as_gray(GRAY), fade), 1, notes + LAID,
        )  # fmt: skip
        out[f"png rgba {depth}"] = Variant(
            png(np.dstack([samples, layers]), depth, 6), on_white(RGB, fade), 1, notes + LAID
        )
    out["png animated"] = Variant(
        saved(picture(), "PNG", save_all=True, append_images=[picture(RGB[::-1])] * 2, disposal=1),
        RGB, 0, ("first of 3 frames",),
    )  # fmt: skip
    return out


def tiffs() -> dict[str, Variant]:
    out = {}
    fade = np.broadcast_to(np.arange(WIDTH)[None, :, None] * 255 // (WIDTH - 1), GRAY.shape)
    fade = fade.astype(np.uint8)
    for order, end in (("<", "little"), (">", "big")):
        for depth in (1, 2, 4, 8, 16):
            gray = by_depth(GRAY, depth)
            notes = SCALED if depth == 16 else ()
            name = f"tiff gray {depth} {end}"
            shown = as_gray(back(gray, depth))
            out[name] = Variant(tiff([page(gray, depth, 1, order=order)], order), shown, 0, notes)
            negative = tiff([page(2**depth - 1 - gray, depth, 0, order=order)], order)
            out[name + " white is zero"] = Variant(negative, shown, 0, notes)
        for depth, notes in ((8, ()), (16, SCALED)):
            samples = by_depth(RGB, depth)
            out[f"tiff rgb {depth} {end}"] = Variant(
                tiff([page(samples, depth, 2, order=order)], order), RGB, 0, notes
            )
            layers = np.dstack([samples, by_depth(fade, depth)])
            out[f"tiff rgba {depth} {end}"] = Variant(
                tiff([page(layers, depth, 2, order=order, t338=[2])], order),
                on_white(RGB, fade), 1, notes + LAID,
            )  # fmt: skip
        values = (RGB[:, :, :1] / 255.0).astype(np.float32)
        out[f"tiff float {end}"] = Variant(
            tiff([page(values, 32, 1, order=order, t339=[3])], order),
            as_gray(GRAY), 0, ("scaled from 0..1 to 0..255",),
        )  # fmt: skip
    lab = np.array([[[255, 128, 128], [0, 128, 128], [137, 128, 128]]]) ^ [[[0, 128, 128]]]
    premultiplied = np.dstack([(RGB * (fade / 255.0)).round().astype(np.uint8), fade])
    cut = np.dstack([(GRAY * (fade / 255.0)).round().astype(np.uint8), fade])
    twelve = by_depth(GRAY, 12).reshape(HEIGHT, -1, 2)
    halves = np.stack(
        [twelve[..., 0] >> 4, (twelve[..., 0] & 15) << 4 | twelve[..., 1] >> 8, twelve[..., 1] & 255],
        axis=2,
    ).astype(np.uint8)  # fmt: skip
    packed_twelve, strips = page(halves, 8, 1, t256=[WIDTH], t258=[12], t277=[1])
    inks = np.dstack([255 - RGB, np.zeros_like(GRAY)])
    planes = [RGB[:, :, band].tobytes() for band in range(3)]
    separate, _ = page(RGB, 8, 2, t284=[2], t278=[HEIGHT])
    red = colours(16, 16).reshape(-1, 3)
    index = GRAY % 200
    palette = (red.astype(int) * 257).T.reshape(-1).tolist()
    out |= {
        "tiff gray alpha": Variant(
            tiff([page(np.dstack([GRAY, fade]), 8, 1, t338=[2])], "<"),
            on_white(as_gray(GRAY), fade), 1, LAID,
        ),
        "tiff gray alpha premultiplied": Variant(
            tiff([page(cut, 8, 1, t338=[1])], "<"), on_white(as_gray(GRAY), fade), 3, LAID
        ),
        "tiff rgba premultiplied": Variant(
            tiff([page(premultiplied, 8, 2, t338=[1])], "<"), on_white(RGB, fade), 3, LAID
        ),
        "tiff gray 12": Variant(
            tiff([(packed_twelve, strips)], "<"), as_gray(back(by_depth(GRAY, 12), 12)), 0,
            ("scaled from 0..4095 to 0..255",),
        ),
        "tiff palette": Variant(tiff([page(index, 8, 3, t320=palette)], "<"), red[index[..., 0]]),
        "tiff cmyk": Variant(tiff([page(inks, 8, 5)], "<"), RGB),
        "tiff lab": Variant(
            tiff([page(lab, 8, 8)], "<"), np.array([[[255] * 3, [0] * 3, [128] * 3]], np.uint8), 2,
            ("converted from Lab to sRGB",),
        ),
        "tiff one strip without an end": Variant(
            tiff([({**page(RGB, 8, 2)[0], 278: [2**32 - 1]}, [RGB.tobytes()])], "<"), RGB
        ),
        "tiff planes": Variant(tiff([(separate, planes)], "<"), RGB),
        "tiff tiled deflate": Variant(tiff([tiled(RGB, 16)], "<"), RGB),
        "tiff tiled deflate big": Variant(tiff([tiled(RGB, 16)], ">"), RGB),
        "tiff pages": Variant(
            tiff([page(RGB, 8, 2), page(GRAY, 8, 1), page(RGB[:4], 8, 2)], "<"), RGB, 0,
            ("first of 3 frames",),
        ),
        "tiff jpeg": Variant(saved(picture(), "TIFF", compression="jpeg", quality=100), RGB, 8),
        "tiff fax 4": Variant(
            saved(picture(GRAY[:, :, 0]).point(lambda v: 255 * (v > 127), "1"), "TIFF",
                  compression="group4"),
            as_gray(255 * (GRAY > 127)),
        ),
        "tiff big": Variant(saved(picture(), "TIFF", big_tiff=True), RGB),
        "tiff deflate predicted": Variant(
            saved(picture(), "TIFF", compression="tiff_adobe_deflate", tiffinfo={317: 2}), RGB
        ),
    }  # fmt: skip
    for kind in ("lzw", "deflate", "adobe_deflate"):
        out[f"tiff {kind}"] = Variant(saved(picture(), "TIFF", compression=f"tiff_{kind}"), RGB)
    out["tiff packbits"] = Variant(saved(picture(), "TIFF", compression="packbits"), RGB)
    return out


def bmps() -> dict[str, Variant]:
    palette = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    quad = np.array([palette[:2], palette[2:]], np.uint8)  # upper row, lower row
    wide = np.repeat(quad, 2, axis=1)
    bgr = quad[::-1, :, ::-1]  # a BMP's rows go up, its colours are blue, green, red
    row = [struct.pack("<2H", *pair) for pair in ((0x001F, 0x0000), (0x0000, 0x7C00))]
    masks = [0xFF0000, 0xFF00, 0xFF, 0xFF000000]
    seen = np.array([[255, 255, 128, 0]], np.uint8).reshape(2, 2)
    four = np.dstack([bgr, seen[::-1]])
    laid = on_white(quad, seen)
    opaque = np.dstack([bgr, np.zeros((2, 2), np.uint8)])
    return {
        "bmp 24": Variant(saved(picture(), "BMP"), RGB),
        "bmp 24 top down": Variant(
            bmp(2, -2, 24, b"".join(r.tobytes() + b"\0\0" for r in bgr[::-1])), quad
        ),
        "bmp 1": Variant(bmp(2, 2, 1, b"\x80\0\0\0\x40\0\0\0", palette=palette[:2]),
                         np.array([palette[:2], palette[1::-1]], np.uint8)),
        "bmp 4": Variant(bmp(2, 2, 4, b"\x23\0\0\0\x01\0\0\0", palette=palette), quad),
        "bmp 8": Variant(bmp(2, 2, 8, b"\2\3\0\0\0\1\0\0", palette=palette), quad),
        "bmp 16": Variant(
            bmp(2, 2, 16, row[0] + row[1]),
            np.array([[[0, 0, 0], [255, 0, 0]], [[0, 0, 255], [0, 0, 0]]], np.uint8),
        ),
        "bmp 16 of 565": Variant(
            bmp(2, 1, 16, struct.pack("<2H", 0xF800, 0x07E0), compression=3,
                masks=[0xF800, 0x07E0, 0x001F]),
            np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8),
        ),
        "bmp 32 without alpha": Variant(bmp(2, 2, 32, opaque.tobytes()), quad),
        "bmp 32 with alpha": Variant(
            bmp(2, 2, 32, four.tobytes(), compression=3, masks=masks), laid, 1, LAID
        ),
        "bmp 8 runs": Variant(
            bmp(4, 2, 8, b"\2\2\2\3\0\0\2\0\2\1\0\1", compression=1, palette=palette),
            wide,
        ),
        "bmp 4 runs": Variant(
            bmp(4, 2, 4, b"\2\x22\2\x33\0\0\2\0\2\x11\0\1", compression=2, palette=palette), wide
        ),
    }  # fmt: skip


def gifs() -> dict[str, Variant]:
    palette = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]
    small = np.full((4, 4, 3), 255, np.uint8)
    small[1:3, 1:3] = np.array(palette, np.uint8).reshape(2, 2, 3)
    seen = np.array([[palette[0], (255, 255, 255)], [palette[2], palette[3]]], np.uint8)
    whole = np.array(palette, np.uint8).reshape(2, 2, 3)
    over = ((0, 0, 4, 4), [1] * 16, 0, None)
    levels = np.arange(24, dtype=np.uint8)[None, :].repeat(16, axis=0) * 10
    return {
        "gif": Variant(gif((2, 2), [((0, 0, 2, 2), [0, 1, 2, 3], 0, None)], palette), whole),
        "gif transparent": Variant(
            gif((2, 2), [((0, 0, 2, 2), [0, 1, 2, 3], 0, 1)], palette), seen, 0, LAID
        ),
        "gif interlaced gray": Variant(
            saved(picture(levels), "GIF", interlace=1), as_gray(levels)
        ),
        **{
            f"gif animated, disposal {disposal}": Variant(
                gif((4, 4), [((1, 1, 2, 2), [0, 1, 2, 3], disposal, None), over], palette),
                small, 0, ("first of 2 frames", *LAID),
            )
            for disposal in (0, 1, 2, 3)
        },
    }  # fmt: skip


def webps() -> dict[str, Variant]:
    fade = (np.arange(WIDTH)[None, :, None] * 255 // (WIDTH - 1)).repeat(HEIGHT, axis=0)
    clear = picture(np.dstack([RGB, fade.astype(np.uint8)]))
    others = [picture(RGB[::-1])]
    return {
        "webp lossless": Variant(saved(picture(), "WEBP", lossless=True), RGB),
        "webp lossy": Variant(saved(picture(), "WEBP", quality=100), RGB, 40),
        "webp alpha": Variant(
            saved(clear, "WEBP", lossless=True, exact=True), on_white(RGB, fade), 1, LAID
        ),
        "webp animated": Variant(
            saved(picture(), "WEBP", lossless=True, save_all=True, append_images=others),
            RGB, 0, ("first of 2 frames",),
        ),
    }  # fmt: skip


def avifs() -> dict[str, Variant]:
    fine: dict[str, Any] = {"quality": 100, "subsampling": "4:4:4", "speed": 10}
    fade = (np.arange(WIDTH)[None, :, None] * 255 // (WIDTH - 1)).repeat(HEIGHT, axis=0)
    clear = picture(np.dstack([RGB, fade.astype(np.uint8)]))
    others = [picture(RGB[::-1])]
    return {
        "avif": Variant(saved(picture(), "AVIF", **fine), RGB, 4),
        "avif 4:2:0": Variant(saved(picture(), "AVIF", quality=90, speed=10), RGB, 30),
        "avif alpha": Variant(saved(clear, "AVIF", **fine), on_white(RGB, fade), 4, LAID),
        "avif animated": Variant(
            saved(picture(), "AVIF", save_all=True, append_images=others, **fine),
            RGB, 8, ("first of 2 frames",),
        ),
    }  # fmt: skip


ALL = jpegs() | pngs() | tiffs() | bmps() | gifs() | webps() | avifs()
