"""rle.json: a job's result as a COCO document. Documents of several jobs can be merged.

Tools for COCO read a category id of 0 as 'no class'. So `category_id` is the class id plus 1, and each
annotation has the class id as well. https://cocodataset.org/#format-data
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from maskq.contract.jobs import ClassStats
from maskq_worker.outputs.rle import encode_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Source:
    """The image that was segmented, and the job that did it."""

    name: str = "image"  # of the file
    uri: str = ""  # where it was read from, without secrets
    etag: str | None = None  # of the object that was read
    job_id: str = ""


def rle_json(
    mask: NDArray[Any], classes: Sequence[ClassStats], labels: Sequence[str], source: Source
) -> bytes:
    """The document: one image, every class of the model, one annotation for each class present.

    mask: (H, W), class ids; classes: those present; labels: of every class, by class id.
    """
    height, width = mask.shape
    image_id = _id(source.uri, source.etag or "")
    image = {
        "id": image_id,
        "file_name": source.name,
        "width": width,
        "height": height,
        "coco_url": source.uri,
        "job_id": source.job_id,
    }
    encoded = encode_classes(mask)
    annotations = [
        {
            "id": _id(source.job_id, str(entry.id)),
            "image_id": image_id,
            "category_id": entry.id + 1,
            "class_id": entry.id,
            "category": entry.label,
            "iscrowd": 0,
            "segmentation": {"size": [height, width], "counts": encoded[entry.id].counts},
            "area": entry.pixels,
            "bbox": encoded[entry.id].bbox,
        }
        for entry in classes
    ]
    # ASCII, because pycocotools opens a document in the encoding of the locale.
    head = {"info": {"description": "maskq"}, "licenses": [], "images": [image]}
    return (
        f'{json.dumps(head)[:-1]}, "categories": {_categories(tuple(labels))}, '
        f'"annotations": {json.dumps(annotations)}}}'
    ).encode()


@lru_cache(maxsize=8)
def _categories(labels: tuple[str, ...]) -> str:
    """JSON. Names are unique and not empty: supervision and datumaro identify categories by name."""
    times, taken = Counter(labels), set(labels)
    categories = []
    for class_id, name in enumerate(labels):
        if not name or times[name] > 1:
            name = f"{name or 'class'} ({class_id})"
            while name in taken:
                name += "'"
            taken.add(name)
        categories.append({"id": class_id + 1, "name": name, "supercategory": "", "isthing": 0})
    return json.dumps(categories)


def _id(*parts: str) -> int:
    """A positive number derived from the parts, below 2^53 so that JavaScript reads it exactly."""
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 11 or 1
