"""From a mask to what a job asked for: files for the store, numbers for the record."""

from __future__ import annotations

import difflib
import io
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskq.contract import FailureCode, Output
from maskq.contract.jobs import ClassStats
from maskq_worker.errors import PermanentError
from maskq_worker.model.labels import PALETTE_COLOURS, palette

if TYPE_CHECKING:
    from numpy.typing import NDArray

OVERLAY_ALPHA: Final = 0.5  # of the mask's colours over the image
OVERLAY_QUALITY: Final = 90
# A palette image has no use for PNG's filters, and more effort than this saves little of few bytes.
PNG_COMPRESS_LEVEL: Final = 1
MEASURED: Final = frozenset({Output.STATS, Output.RLE})  # need more of each class than its share
BINARY: Final = "binary/"  # the directory of that output
_BAND: Final = 1 << 19  # pixels looked at at once: what is counted in them takes some 30 MB
_JPEG_SIDE: Final = 65_500  # px


class Segmented(Protocol):
    """What the model said about one image."""

    @property
    def mask(self) -> NDArray[Any]: ...  # (H, W) uint8 or uint16, class ids

    @property
    def logits(self) -> NDArray[np.float32] | None: ...  # (C, h, w)

    @property
    def confidence(self) -> NDArray[np.uint8] | None: ...  # (H, W)


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a result."""

    output: Output
    filename: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Look:
    """How an overlay is drawn."""

    alpha: float = OVERLAY_ALPHA  # of the colours over the image, 0..1
    legend: bool = False  # whether colours, labels and shares stand below


_PLAIN: Final = Look()


def encode(
    wanted: frozenset[Output],
    *,
    image: Image.Image,
    output: Segmented,
    labels: Sequence[str],
    classes: Sequence[ClassStats] | None = None,
    look: Look = _PLAIN,
) -> list[Artifact]:
    """The files that were asked for, in the order of `Output`; of BINARY one for each class.

    image: RGB, upright, as large as the mask; output: its mask may be one of `only`; labels: by
    class id; classes: what `measured` says of this mask, if that is known already. Raises ValueError
    if the mask is not of the image's size, or if logits or confidence are wanted and were not kept.
    """
    if output.mask.shape != (image.height, image.width):
        raise ValueError(
            f"a mask of {output.mask.shape} for an image of {(image.height, image.width)}"
        )
    if classes is None:
        classes = measured(wanted, output.mask, labels)
    return [*_files(wanted, image, output, labels, classes, look)]


def _files(
    wanted: frozenset[Output],
    image: Image.Image,
    output: Segmented,
    labels: Sequence[str],
    classes: Sequence[ClassStats],
    look: Look,
) -> Iterator[Artifact]:
    mask, png, json_type = output.mask, "image/png", "application/json"
    if Output.MASK in wanted:
        yield Artifact(Output.MASK, "mask.png", png, mask_png(mask, len(labels)))
    if Output.OVERLAY in wanted:
        body = overlay_jpeg(image, mask, len(labels), look.alpha, classes if look.legend else ())
        yield Artifact(Output.OVERLAY, "overlay.jpg", "image/jpeg", body)
    if Output.STATS in wanted:
        yield Artifact(Output.STATS, "stats.json", json_type, stats_json(mask, classes))
    if Output.LOGITS in wanted:
        yield Artifact(Output.LOGITS, "logits.npy", "application/x-npy", logits_npy(output.logits))
    if Output.CONFIDENCE in wanted:
        body = confidence_png(output.confidence)
        yield Artifact(Output.CONFIDENCE, "confidence.png", png, body)
    if Output.RLE in wanted:
        yield Artifact(Output.RLE, "rle.json", json_type, rle_json(mask, classes))
    if Output.BINARY in wanted:
        for entry in classes:
            body = binary_png(mask, entry.id)
            yield Artifact(Output.BINARY, f"{BINARY}{entry.id:03d}.png", png, body)


# --- which classes ------------------------------------------------------------------------------------


def chosen(names: Collection[str] | None, labels: Sequence[str]) -> frozenset[int] | None:
    """The ids that are meant by labels or ids; None, which is every class, by None.

    Raises PermanentError `invalid_request` for what the model does not know, with what comes near.
    """
    if names is None:
        return None
    ids: set[int] = set()
    for name in sorted(names):
        found = [index for index, label in enumerate(labels) if label == name]
        if not found and name.isascii() and name.isdigit() and int(name) < len(labels):
            found = [int(name)]
        if not found:
            raise PermanentError(FailureCode.INVALID_REQUEST, _unknown_class(name, labels))
        ids.update(found)
    return frozenset(ids)


def only(mask: NDArray[Any], ids: frozenset[int] | None, num_labels: int) -> NDArray[Any]:
    """The mask with 255 (65535 in one of 16 bits) in place of every class that is not in `ids`.

    Where 255 is a class, the mask that comes back has 16 bits.
    """
    if ids is None:
        return mask
    wide = mask.dtype == np.uint16 or num_labels >= PALETTE_COLOURS
    table = np.full(max(num_labels, int(mask.max()) + 1), 65535 if wide else 255, dtype=np.uint16)
    kept = sorted(ids)
    table[kept] = kept
    filtered: NDArray[Any] = table.astype(np.uint16 if wide else np.uint8)[mask]
    return filtered


def colours(classes: Sequence[ClassStats], num_labels: int) -> dict[int, str]:
    """Class id → '#rrggbb', as in masks and overlays."""
    return {entry.id: f"#{bytes(_rgb(entry.id, num_labels)).hex()}" for entry in classes}


def _unknown_class(name: str, labels: Sequence[str]) -> str:
    by_folded = {label.casefold(): label for label in labels}
    near = difflib.get_close_matches(name.casefold(), list(by_folded), n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(repr(by_folded[one]) for one in near)}?" if near else ""
    rest = hint or f"its classes are 0 ({labels[0]}) to {len(labels) - 1} ({labels[-1]})"
    return f"classes: the model has no class {name!r}; {rest}"


# --- pictures -----------------------------------------------------------------------------------------


def mask_png(mask: NDArray[Any], num_labels: int) -> bytes:
    """Pixel = class id: a palette PNG, or 16-bit gray where there are more than 256 classes."""
    image = Image.fromarray(mask) if mask.dtype == np.uint16 else _coloured(mask, num_labels)
    return _saved(image, "PNG", compress_level=PNG_COMPRESS_LEVEL)


def overlay_jpeg(
    image: Image.Image,
    mask: NDArray[Any],
    num_labels: int,
    alpha: float = OVERLAY_ALPHA,
    legend: Sequence[ClassStats] = (),
) -> bytes:
    """The image with the colours of its classes over it; below it a legend of those named, if any."""
    ids = mask if mask.dtype == np.uint8 else (mask % PALETTE_COLOURS).astype(np.uint8)
    blended = Image.blend(image, _coloured(ids, num_labels).convert("RGB"), alpha)
    tinted = mask < num_labels
    if not tinted.all():
        blended = Image.composite(blended, image, Image.fromarray(tinted))
    if legend:
        blended = _with_legend(blended, legend, num_labels)
    return _saved(blended, "JPEG", quality=OVERLAY_QUALITY)


def confidence_png(confidence: NDArray[np.uint8] | None) -> bytes:
    """Gray, (H, W): 255 times the probability of the class that won."""
    if confidence is None:
        raise ValueError("confidence is wanted, but the model was not asked to keep it")
    return _saved(Image.fromarray(confidence), "PNG", compress_level=PNG_COMPRESS_LEVEL)


def binary_png(mask: NDArray[Any], class_id: int) -> bytes:
    """1 bit a pixel: white where the class is."""
    return _saved(Image.fromarray(mask == class_id), "PNG", compress_level=PNG_COMPRESS_LEVEL)


def _with_legend(
    picture: Image.Image, classes: Sequence[ClassStats], num_labels: int
) -> Image.Image:
    """The picture, and below it as many rows of colour, label and share as a JPEG has room for."""
    size = min(max(picture.width // 45, 12), 40)  # px of the letters
    font, row, swatch = ImageFont.load_default(size), size * 2, round(size * 1.2)
    texts = [f"{entry.label}  {_percent(entry.share)}" for entry in classes]
    column = round(max(font.getlength(text) for text in texts)) + swatch + 2 * size
    columns = max(1, (picture.width - size) // column)
    rows = min(-(-len(texts) // columns), max(0, (_JPEG_SIDE - picture.height - size) // row))
    if not rows:
        return picture
    whole = Image.new("RGB", (picture.width, picture.height + rows * row + size), "white")
    whole.paste(picture)
    draw = ImageDraw.Draw(whole)
    for number, (entry, text) in enumerate(zip(classes, texts, strict=True)):
        across, down = number % columns, number // columns
        if down == rows:
            break
        left, middle = size + across * column, picture.height + size // 2 + down * row + row // 2
        box = (left, middle - swatch // 2, left + swatch, middle + swatch // 2)
        draw.rectangle(box, fill=_rgb(entry.id, num_labels), outline="#808080")
        draw.text((left + swatch + size // 2, middle), text, "#202020", font, anchor="lm")
    return whole


def _percent(share: float) -> str:
    return "<0.1 %" if share < 0.0005 else f"{share:.1%}".replace("%", " %")


def _rgb(class_id: int, num_labels: int) -> tuple[int, int, int]:
    at = class_id % PALETTE_COLOURS * 3
    red, green, blue = palette(num_labels)[at : at + 3]
    return red, green, blue


def _coloured(mask: NDArray[np.uint8], num_labels: int) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette(palette(num_labels))  # makes it mode P, its pixels unchanged
    return image


def _saved(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# --- numbers ------------------------------------------------------------------------------------------


def stats_json(mask: NDArray[Any], classes: Sequence[ClassStats]) -> bytes:
    """{"width": …, "height": …, "classes": [{"id", "label", "pixels", "share", …}, …]}, UTF-8."""
    document = {
        "width": mask.shape[1],
        "height": mask.shape[0],
        "classes": [entry.model_dump() for entry in classes],
    }
    return json.dumps(document, ensure_ascii=False, indent=2).encode()


def logits_npy(logits: NDArray[np.float32] | None) -> bytes:
    """float32 (classes, height, width) at the model's own size, in numpy's format."""
    if logits is None:
        raise ValueError("logits are wanted, but the model was not asked to keep them")
    buffer = io.BytesIO()
    np.save(buffer, logits.astype(np.float32, copy=False), allow_pickle=False)
    return buffer.getvalue()


def measured(
    wanted: frozenset[Output], mask: NDArray[Any], labels: Sequence[str]
) -> list[ClassStats]:
    """What the outputs wanted need to know of each class that is there; the largest share first."""
    return stats(mask, labels) if wanted & MEASURED else shares(mask, labels)


def shares(mask: NDArray[Any], labels: Sequence[str]) -> list[ClassStats]:
    """How much of the mask (H, W) each class covers that is there; the largest share first."""
    counts = _histogram(mask)[: len(labels)]
    present = sorted(np.flatnonzero(counts).tolist(), key=lambda index: (-counts[index], index))
    return [
        ClassStats(
            id=index,
            label=labels[index],
            pixels=int(counts[index]),
            share=float(counts[index] / mask.size),
        )
        for index in present
    ]


def stats(mask: NDArray[Any], labels: Sequence[str]) -> list[ClassStats]:
    """The same, with the box around each class and the number of its 8-connected regions.

    Goes over the mask once, from top to bottom, and holds no more than a band of it.
    """
    height, width = mask.shape
    survey = _Survey(width, int(mask.max()) + 1)
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        # With the last row of the band before: what touches it goes on.
        survey.add(mask[max(0, top - 1) : top + rows], max(0, top - 1))
    return [
        entry.model_copy(
            update={"bbox": survey.box(entry.id), "regions": int(survey.regions[entry.id])}
        )
        for entry in shares(mask, labels)
    ]


def _histogram(mask: NDArray[Any]) -> NDArray[np.int64]:
    """Pixels per class id. Pillow's needs no copy of the mask; numpy's makes one of 8 bytes a pixel."""
    if mask.dtype == np.uint8:
        return np.array(Image.fromarray(mask).histogram(), dtype=np.int64)
    return np.bincount(mask.ravel())


class _Survey:
    """Boxes and regions per class, of bands of rows that come one after the other.

    A run is a row's pixels of one class side by side. There are as many regions as runs, less one for
    every time that two parts of one region turn out to touch.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        self._width = width
        self._low = np.full((2, num_classes), np.iinfo(np.int64).max)  # least x and y of each class
        self._high = np.full((2, num_classes), -1)  # greatest x and y
        self.regions = np.zeros(num_classes, dtype=np.int64)
        self._parts = np.zeros(0, dtype=np.int32)  # that its last row's runs belong to

    def add(self, band: NDArray[Any], top: int) -> None:
        """band: (h, W), from row `top` of the mask on; its first row is the last one of the band
        before, if there was one."""
        begins = np.ones(band.shape, dtype=bool)
        np.not_equal(band[:, 1:], band[:, :-1], out=begins[:, 1:])
        pixels = np.ascontiguousarray(band).ravel()
        starts = np.flatnonzero(begins)
        kinds = pixels[starts]
        self._widen(starts, kinds, top)
        seen = int(np.count_nonzero(starts < self._width)) if self._parts.size else 0
        known = int(self._parts.max()) + 1 if seen else 0
        # Parts of regions: those that the last band ended in, then every run that is new.
        new = np.arange(known, known + len(starts) - seen, dtype=np.int32)
        parts = np.concatenate([self._parts, new])
        kind_of = np.empty(known + len(new), dtype=kinds.dtype)
        kind_of[parts] = kinds
        roots = _roots(
            len(kind_of),
            *(parts[runs] for runs in _touching(pixels, begins.ravel(), starts, self._width)),
        )
        is_root = roots == np.arange(len(roots))
        self.regions += np.bincount(kinds[seen:], minlength=len(self.regions))
        self.regions -= np.bincount(kind_of[~is_root], minlength=len(self.regions))
        last = parts[starts >= len(pixels) - self._width]
        self._parts = np.unique(roots[last], return_inverse=True)[1].astype(np.int32)

    def box(self, class_id: int) -> list[int]:
        """x, y, width and height, px."""
        (left, top), (right, bottom) = self._low[:, class_id], self._high[:, class_id]
        return [int(left), int(top), int(right - left) + 1, int(bottom - top) + 1]

    def _widen(self, starts: NDArray[np.int64], kinds: NDArray[Any], top: int) -> None:
        rows, left = np.divmod(starts, self._width)
        # Every row begins a run, so a run ends where the next one begins, or at its row's end.
        right = np.append(left[1:], 0) - 1
        right[right < 0] = self._width - 1
        for axis, (least, greatest) in enumerate(((left, right), (rows + top, rows + top))):
            np.minimum.at(self._low[axis], kinds, least)
            np.maximum.at(self._high[axis], kinds, greatest)


def _touching(
    pixels: NDArray[Any], begins: NDArray[np.bool_], starts: NDArray[np.int64], width: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pairs of runs of one class that lie in rows one above the other and touch, by their numbers.

    pixels, begins: flat, whole rows; starts: where `begins` is true. Corners count as touching.
    """
    number = np.cumsum(begins, dtype=np.int32)
    number -= 1
    upper = starts[starts < len(pixels) - width]
    lower = starts[starts >= width]
    # Where both rows change at one place, the class may go on across the corner.
    corner = upper[begins[upper + width]]
    corner = corner[corner % width > 0]
    pairs = (
        (upper, upper + width),
        (lower - width, lower),
        (corner - 1, corner + width),
        (corner, corner + width - 1),
    )
    same = [pixels[above] == pixels[below] for above, below in pairs]
    above, below = (
        np.concatenate([number[pair[side][one]] for pair, one in zip(pairs, same, strict=True)])
        for side in (0, 1)
    )
    return above, below


def _roots(count: int, one: NDArray[np.int32], other: NDArray[np.int32]) -> NDArray[np.int32]:
    """For each of `count` nodes the node that stands for all it is linked with.

    one, other: the ends of each link.

    Each round every group joins its smallest neighbour, so that at least half of those that have one
    are gone after it: Borůvka's way, whatever the shape of the regions.
    """
    root = np.arange(count, dtype=np.int32)
    while len(one):
        nearest = np.full(count, count, dtype=np.int32)
        np.minimum.at(nearest, one, other)
        np.minimum.at(nearest, other, one)
        moved = np.flatnonzero(nearest < count)
        root[moved] = nearest[moved]
        mutual = moved[(root[root[moved]] == moved) & (moved < root[moved])]
        root[mutual] = mutual  # of two that chose each other, the smaller one stays
        while not np.array_equal(root, further := root[root]):
            root = further
        one, other = root[one], root[other]
        apart = one != other
        one, other = one[apart], other[apart]
    return root


# --- run-length encoding ------------------------------------------------------------------------------


def rle_json(mask: NDArray[Any], classes: Sequence[ClassStats]) -> bytes:
    """A COCO document with one annotation per class, compressed RLE; pycocotools loads it as it is.

    classes: with their boxes, as `stats` gives them.
    """
    height, width = mask.shape
    counts = _counts_by_class(mask)
    document = {
        "images": [{"id": 1, "width": width, "height": height}],
        "categories": [{"id": entry.id, "name": entry.label} for entry in classes],
        "annotations": [
            {
                "id": number,
                "image_id": 1,
                "category_id": entry.id,
                "category": entry.label,
                "iscrowd": 0,
                "segmentation": {"size": [height, width], "counts": _letters(counts(entry.id))},
                "area": entry.pixels,
                "bbox": entry.bbox,
            }
            for number, entry in enumerate(classes, 1)
        ],
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _counts_by_class(mask: NDArray[Any]) -> Callable[[int], NDArray[np.int64]]:
    """What gives, for a class id, how many pixels are not of it, then of it, then not, and so on.

    Pixels are taken column by column, as COCO does.
    """
    starts, kinds = _column_runs(mask)
    ends = np.append(starts[1:], starts.dtype.type(mask.size))
    order = np.argsort(kinds, kind="stable")
    starts, ends = starts[order], ends[order]
    firsts = np.cumsum(np.bincount(kinds)) - np.bincount(kinds)

    def counts(class_id: int) -> NDArray[np.int64]:
        runs = slice(firsts[class_id], (*firsts, len(starts))[class_id + 1])
        bounds = np.empty(2 * (runs.stop - runs.start) + 1, dtype=np.int64)
        bounds[0:-1:2], bounds[1:-1:2], bounds[-1] = starts[runs], ends[runs], mask.size
        lengths = np.diff(bounds, prepend=0)
        return lengths if lengths[-1] else lengths[:-1]

    return counts


def _column_runs(mask: NDArray[Any]) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[Any]]:
    """Where, column by column, the class changes, and to which; a part of the columns at a time."""
    height, width = mask.shape
    starts, kinds = [], []
    before = None
    narrow = np.min_scalar_type(mask.size)  # a mask of noise has as many runs as pixels
    columns = max(1, _BAND // height)
    for left in range(0, width, columns):
        pixels = mask[:, left : left + columns].T.ravel()
        begins = np.flatnonzero(np.diff(pixels, prepend=pixels[:1] if before is None else before))
        if before is None:
            begins = np.insert(begins, 0, 0)
        starts.append((begins + left * height).astype(narrow))
        kinds.append(pixels[begins])
        before = pixels[-1:]
    return np.concatenate(starts), np.concatenate(kinds)


def _letters(counts: NDArray[np.int64]) -> str:
    """COCO's own compression: from the fourth on, counts as the difference to the last but one; each
    in groups of 5 bits, lowest first, 32 added where another follows, and 48 to become a letter."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    parts = (values[at : at + _BAND] for at in range(0, len(values), _BAND))
    return "".join(map(_groups, parts))


def _groups(rest: NDArray[np.int64]) -> str:
    columns = []
    going_on = np.ones(len(rest), dtype=bool)
    while going_on.any():
        low = rest & 31
        rest = rest >> 5
        more = rest != -(low >> 4)  # what is left is not just the sign of this group
        columns.append(np.where(going_on, low + 32 * more + 48, 0).astype(np.uint8))
        going_on &= more
    letters = np.stack(columns, axis=1)
    return letters[letters > 0].tobytes().decode()
