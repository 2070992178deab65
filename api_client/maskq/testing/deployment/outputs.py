"""The files of a fake job's outputs, by Pillow alone: a client is installed without numpy."""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from maskq.contract import Output
from maskq.contract.jobs import ClassStats
from maskq.contract.outputs import FILES
from maskq.testing.deployment.pictures import palette
from maskq.testing.deployment.regions import regions_of

if TYPE_CHECKING:
    import PIL.Image

_ALPHA: Final = 0.5
_SCORES_SIDE: Final = 8  # of the fake network's own square, px


@dataclass(frozen=True, slots=True)
class Segmented:
    """What the files are made of."""

    photo: PIL.Image.Image  # RGB
    mask: PIL.Image.Image  # L; 255: not among the chosen classes
    labels: Sequence[str]
    classes: Sequence[ClassStats]
    alpha: float | None
    name: str  # of the image
    job_id: str


def files_of(outputs: Collection[Output], made: Segmented) -> dict[Output, dict[str, bytes]]:
    """Output → name of a file → its bytes. Raises ValueError for an output that fakes do not make."""
    if unknown := set(outputs) - _FILES.keys():
        raise ValueError(f"fakes make no {', '.join(sorted(unknown))}; use the fixture maskq_stack")
    return {output: _FILES[output](made) for output in Output if output in outputs}


def only(mask: PIL.Image.Image, class_ids: Collection[int]) -> PIL.Image.Image:
    """The mask with 255 in place of every other class."""
    return mask.point([value if value in class_ids else 255 for value in range(256)])


def stats_of(mask: PIL.Image.Image, labels: Sequence[str], *, shapes: bool) -> list[ClassStats]:
    """The classes in the mask, the largest first. shapes: with `bbox` and `regions`."""
    regions = regions_of(mask) if shapes else {}
    counts = mask.histogram()[: len(labels)]
    total = mask.width * mask.height
    present = sorted(filter(counts.__getitem__, range(len(counts))), key=lambda i: (-counts[i], i))
    return [
        ClassStats(
            id=class_id,
            label=labels[class_id],
            pixels=counts[class_id],
            share=counts[class_id] / total,
            bbox=_box(mask, class_id) if shapes else None,
            regions=regions.get(class_id),
        )
        for class_id in present
    ]


def _of_class(mask: PIL.Image.Image, class_id: int) -> PIL.Image.Image:
    return mask.point([255 * (value == class_id) for value in range(256)])


def _box(mask: PIL.Image.Image, class_id: int) -> list[int]:
    left, top, right, bottom = _of_class(mask, class_id).getbbox() or (0, 0, 0, 0)
    return [left, top, right - left, bottom - top]


def _coloured(made: Segmented) -> PIL.Image.Image:
    from PIL import Image

    coloured = Image.frombytes("P", made.mask.size, made.mask.tobytes())
    coloured.putpalette(palette())
    return coloured


def _mask(made: Segmented) -> dict[str, bytes]:
    return _one(Output.MASK, _encoded(_coloured(made), "PNG"))


def _overlay(made: Segmented) -> dict[str, bytes]:
    from PIL import Image

    alpha = _ALPHA if made.alpha is None else made.alpha
    blended = Image.blend(made.photo, _coloured(made).convert("RGB"), alpha)
    return _one(Output.OVERLAY, _encoded(blended, "JPEG"))


def _stats(made: Segmented) -> dict[str, bytes]:
    classes = [one.model_dump() for one in made.classes]
    width, height = made.mask.size
    return _one(Output.STATS, _json({"width": width, "height": height, "classes": classes}))


def _logits(made: Segmented) -> dict[str, bytes]:
    """In numpy's format: 1.0 for the class of each cell's first pixel, else 0.0."""
    side, (width, height) = _SCORES_SIDE, made.mask.size
    cells = [
        made.mask.getpixel((x * width // side, y * height // side))
        for y in range(side)
        for x in range(side)
    ]
    scores = array("f", (float(cell == i) for i in range(len(made.labels)) for cell in cells))
    shape = (len(made.labels), side, side)
    head = str({"descr": "<f4", "fortran_order": False, "shape": shape})
    head = head.ljust(118 - 1) + "\n"  # 128 bytes with the magic, the version and the length
    start = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little")
    return _one(Output.LOGITS, start + head.encode() + scores.tobytes())


def _confidence(made: Segmented) -> dict[str, bytes]:
    from PIL import Image

    return _one(Output.CONFIDENCE, _encoded(Image.new("L", made.mask.size, 230), "PNG"))


def _rle(made: Segmented) -> dict[str, bytes]:
    from PIL import Image

    width, height = made.mask.size
    # COCO counts pixels column by column.
    columns = made.mask.transpose(Image.Transpose.TRANSPOSE).tobytes()
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": one.id + 1,
            "class_id": one.id,
            "category": one.label,
            "iscrowd": 0,
            "segmentation": {"size": [height, width], "counts": _counts(columns, one.id)},
            "area": one.pixels,
            "bbox": _box(made.mask, one.id),
        }
        for number, one in enumerate(made.classes, start=1)
    ]
    image = {
        "id": 1, "file_name": made.name, "width": width, "height": height, "job_id": made.job_id,
    }  # fmt: skip
    categories = [
        {"id": class_id + 1, "name": label, "supercategory": "", "isthing": 0}
        for class_id, label in enumerate(made.labels)
    ]
    document = {
        "info": {"description": "maskq"}, "licenses": [], "images": [image],
        "categories": categories, "annotations": annotations,
    }  # fmt: skip
    return _one(Output.RLE, _json(document))


def _binary(made: Segmented) -> dict[str, bytes]:
    files = FILES[Output.BINARY]
    return {
        files.of_class(one.id): _encoded(_of_class(made.mask, one.id).convert("1"), "PNG")
        for one in made.classes
    }


def _uncertain(made: Segmented) -> dict[str, bytes]:
    """No pixel: fakes compute exactly."""
    from PIL import Image

    return _one(Output.UNCERTAIN, _encoded(Image.new("1", made.mask.size), "PNG"))


def _counts(columns: bytes, class_id: int) -> str:
    """COCO's compressed run lengths: how many pixels are not of the class, then are, and so on."""
    runs = [(inside, len(list(run))) for inside, run in groupby(columns, class_id.__eq__)]
    lengths = [length for _, length in runs]
    if runs[0][0]:
        lengths.insert(0, 0)
    text = ""
    for at, length in enumerate(lengths):
        # From the third on the difference to the last but one, in groups of five bits.
        value = length - lengths[at - 2] if at > 2 else length
        while True:
            low, value = value & 31, value >> 5
            more = value != (-1 if low & 16 else 0)
            text += chr((low | 32 * more) + 48)
            if not more:
                break
    return text


def _one(output: Output, body: bytes) -> dict[str, bytes]:
    return {FILES[output].name: body}


def _encoded(image: PIL.Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


_FILES: Final[Mapping[Output, Callable[[Segmented], dict[str, bytes]]]] = MappingProxyType(
    {
        Output.MASK: _mask,
        Output.OVERLAY: _overlay,
        Output.STATS: _stats,
        Output.LOGITS: _logits,
        Output.CONFIDENCE: _confidence,
        Output.RLE: _rle,
        Output.BINARY: _binary,
        Output.UNCERTAIN: _uncertain,
    }
)
