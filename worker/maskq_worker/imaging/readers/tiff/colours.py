"""A TIFF's samples as a picture: what each channel means, by its tags."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from maskq_worker.imaging import colour_spaces
from maskq_worker.imaging.checks import invalid
from maskq_worker.imaging.colour_spaces import srgb_to_linear
from maskq_worker.imaging.picture import Picture
from maskq_worker.imaging.readers.tiff.segments import Layout
from maskq_worker.imaging.samples import rows, to_eight_bits

_WHITE_IS_ZERO, _GRAY, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB, _ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
_COLOURS: Final = {
    _WHITE_IS_ZERO: 1, _GRAY: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3, _ICC_LAB: 3,
}  # fmt: skip
_NAMES: Final = {
    4: "a transparency mask alone", 10: "ITU L*a*b*", 32844: "LogL", 32845: "LogLuv",
    34892: "camera raw", 32803: "camera raw", 51177: "a depth map",
}  # fmt: skip
_ASSOCIATED, _UNASSOCIATED = 1, 2
_JPEG: Final = (7, 33007)
_DECODED_TO_RGB: Final = (*_JPEG, 50001)
_TRANSFER, _ORIENTATION, _WHITE_POINT, _PRIMARIES, _MAP, _INK_SET = 301, 274, 318, 319, 320, 332
_COEFFICIENTS, _REFERENCE, _PROFILE, _NODATA = 529, 532, 34675, 42113
_USUAL_COEFFICIENTS: Final = (0.299, 0.587, 0.114)
_USUAL_REFERENCE: Final = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)


def picture(page: tifffile.TiffPage, layout: Layout, samples: NDArray[Any]) -> Picture:
    """samples: (H, W, C). Raises PermanentError for colour models that are not read."""
    photometric = layout.photometric
    if photometric not in _COLOURS:
        name = _NAMES.get(photometric, f"photometric interpretation {photometric}")
        raise _unsupported(name)
    colours = _COLOURS[photometric]
    if layout.channels < colours:
        raise invalid(
            f"the TIFF image is damaged: it has {layout.channels} samples a pixel where its colours "
            f"need {colours}"
        )
    notes: list[str] = []
    alpha_at, is_premultiplied = _alpha(page, layout, colours, notes)
    image = _image(page, layout, samples[..., :colours], notes)
    alpha = None
    if alpha_at is not None:
        levels = _alpha_levels(samples[..., alpha_at : alpha_at + 1], layout.bits)
        if is_premultiplied:
            image = _unmultiplied(image, levels)
        alpha = Image.fromarray(levels[..., 0])
    icc = page.tags.valueof(_PROFILE)
    result = Picture(
        image,
        "TIFF",
        icc=bytes(icc) if isinstance(icc, (bytes, tuple)) else None,
        orientation=_whole(page.tags.valueof(_ORIENTATION), 1),
        alpha=alpha,
        notes=tuple(notes),
    )
    return result if result.icc is not None else _with_described_colours(page, result)


def _alpha(
    page: tifffile.TiffPage, layout: Layout, colours: int, notes: list[str]
) -> tuple[int | None, bool]:
    """The channel of alpha, and whether colours are multiplied by it."""
    extra = layout.channels - colours
    said = tuple(page.extrasamples)[:extra]
    for number, meaning in enumerate(said):
        if meaning in (_ASSOCIATED, _UNASSOCIATED):
            if extra > 1:
                notes.append(f"{extra - 1} more channels ignored")
            return colours + number, meaning == _ASSOCIATED
    if extra and colours == 1:
        raise _unsupported(f"{layout.channels} channels that do not say what colours they are")
    if extra:
        notes.append(f"{extra} channel{'s' if extra > 1 else ''} without a meaning ignored")
    return None, False


def _image(
    page: tifffile.TiffPage, layout: Layout, samples: NDArray[Any], notes: list[str]
) -> Image.Image:
    photometric = layout.photometric
    if photometric == _PALETTE:
        return _from_palette(page, layout, samples)
    if photometric in (_LAB, _ICC_LAB):
        return _lab(samples, layout.bits, is_offset=photometric == _ICC_LAB)
    if photometric == _CMYK and _whole(page.tags.valueof(_INK_SET), 1) != 1:
        raise _unsupported("inks other than cyan, magenta, yellow and black")
    levels, note = to_eight_bits(
        samples, bits=layout.bits, nodata=_nodata(page), is_negative=photometric == _WHITE_IS_ZERO
    )
    if note:
        notes.append(note)
    if photometric == _YCBCR and (
        layout.compression not in _DECODED_TO_RGB or layout.is_planar or layout.channels > 3
    ):
        _check_ycbcr(page, layout)
        return Image.fromarray(np.ascontiguousarray(levels), "YCbCr").convert("RGB")
    if levels.shape[2] == 1:
        return Image.fromarray(np.ascontiguousarray(levels[..., 0]))
    if photometric == _CMYK:
        size = (layout.width, layout.height)
        return Image.frombuffer("CMYK", size, np.ascontiguousarray(levels), "raw", "CMYK", 0, 1)
    return Image.fromarray(np.ascontiguousarray(levels))


def _from_palette(page: tifffile.TiffPage, layout: Layout, samples: NDArray[Any]) -> Image.Image:
    said = page.tags.valueof(_MAP)
    colours = np.asarray(said if said is not None else (), np.int64).reshape(-1)
    if samples.dtype.kind not in "ub" or layout.bits > 16 or colours.size != 3 << layout.bits:
        raise invalid("the TIFF image is damaged: its palette does not fit its samples")
    table = colours.reshape(3, -1).T
    # 16 bits by the specification; some writers leave 8.
    levels = table if table.max(initial=0) < 256 else (table * (255 / 65535)).round()
    index = samples[..., 0].astype(np.uint16, copy=False)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8)[index])


def _lab(samples: NDArray[Any], bits: int, *, is_offset: bool) -> Image.Image:
    """CIE L*a*b* has signed a and b; ICC's has them offset, and 16 bits of L that end at 0xFF00."""
    if samples.dtype.kind not in "ui" or bits not in (8, 16):
        raise _unsupported(f"L*a*b* of {bits} bits")
    out = np.empty(samples.shape, np.uint8)
    for part in rows(samples):
        values = samples[part].view(f"u{bits // 8}").astype(np.float64)
        if bits == 16:
            values[..., 0] *= 255 / (0xFF00 if is_offset else 0xFFFF)
        colours = values[..., 1:]
        if is_offset:
            colours -= 1 << (bits - 1)
        else:
            colours[colours >= 1 << (bits - 1)] -= 1 << bits
        if bits == 16:
            colours /= 256
        values[..., 1:] = colours.round().clip(-128, 127) + 128
        out[part] = values.round().clip(0, 255)
    return Image.merge(
        "LAB", [Image.fromarray(np.ascontiguousarray(out[..., i])) for i in range(3)]
    )


def _check_ycbcr(page: tifffile.TiffPage, layout: Layout) -> None:
    if layout.bits != 8 or layout.compression == 34712:
        raise _unsupported(f"YCbCr of {layout.bits} bits or in JPEG 2000")
    for tag, usual in ((_COEFFICIENTS, _USUAL_COEFFICIENTS), (_REFERENCE, _USUAL_REFERENCE)):
        said = page.tags.valueof(tag)
        if said is not None and not _is_near(_ratios(said), usual):
            raise _unsupported("YCbCr of unusual coefficients or ranges")


def _alpha_levels(alpha: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if alpha.dtype.kind == "f":
        return (np.nan_to_num(alpha.astype(np.float64)).clip(0, 1) * 255).round().astype(np.uint8)
    if alpha.dtype.kind == "i" or bits > 16:
        most = np.iinfo(alpha.dtype).max
        return (alpha.astype(np.float64).clip(0, most) * (255 / most)).round().astype(np.uint8)
    return to_eight_bits(alpha, bits=bits)[0]


def _unmultiplied(image: Image.Image, alpha: NDArray[np.uint8]) -> Image.Image:
    """Colours as they are without their alpha."""
    if image.mode not in ("L", "RGB"):
        raise _unsupported("colours multiplied by alpha, other than gray and RGB")
    levels = np.asarray(image).reshape(*alpha.shape[:2], -1)
    out = np.empty(levels.shape, np.uint8)
    for part in rows(levels):
        share = np.maximum(alpha[part], 1) / 255.0
        out[part] = (levels[part] / share).round().clip(0, 255)
    return Image.fromarray(out[..., 0] if image.mode == "L" else out)


def _with_described_colours(page: tifffile.TiffPage, result: Picture) -> Picture:
    """The picture with the colours that its tags describe, where there is no profile."""
    points, white = page.tags.valueof(_PRIMARIES), page.tags.valueof(_WHITE_POINT)
    if result.image.mode == "RGB" and points is not None and white is not None:
        numbers = (*_ratios(white), *_ratios(points))
        if len(numbers) == 8:
            result = result.with_colours(colour_spaces.by_numbers(None, numbers))
    curve = page.tags.valueof(_TRANSFER)
    if curve is not None and result.image.mode in ("L", "RGB") and not _is_usual_curve(curve):
        return result.with_notes(["transfer function ignored"])
    return result


def _is_usual_curve(values: Any) -> bool:
    curve = np.asarray(values, np.float64).reshape(-1)[:256] / 65535
    levels = np.linspace(0, 1, len(curve))
    return any(
        np.abs(curve - usual).max() < 0.02 for usual in (srgb_to_linear(levels), levels**2.2)
    )


def _nodata(page: tifffile.TiffPage) -> float | None:
    """GDAL's value for 'none here', which it writes as text; some tools as numbers of its letters."""
    said = page.tags.valueof(_NODATA)
    if isinstance(said, tuple):
        said = "".join(chr(letter) for letter in said if isinstance(letter, int) and letter < 128)
    try:
        return float(str(said).strip("\0 ").replace(",", ".")) if said is not None else None
    except ValueError:
        return None


def _ratios(values: Any) -> tuple[float, ...]:
    """Of a tag of type RATIONAL: numerators and denominators in turn, or numbers."""
    flat = [float(value) for value in np.asarray(values).reshape(-1)]
    if np.asarray(values).dtype.kind == "f" or len(flat) % 2:
        return tuple(flat)
    return tuple(
        above / below if below else 0.0 for above, below in zip(flat[::2], flat[1::2], strict=True)
    )


def _is_near(values: tuple[float, ...], usual: tuple[float, ...]) -> bool:
    return len(values) == len(usual) and all(
        abs(a - b) < 0.005 for a, b in zip(values, usual, strict=True)
    )


def _whole(value: Any, otherwise: int) -> int:
    return int(value) if isinstance(value, int) else otherwise


def _unsupported(what: str) -> Exception:
    return invalid(f"the TIFF image has {what}, which is not supported")
