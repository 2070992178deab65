"""COCO documents: merge those of several jobs, or make a panoptic segmentation from a mask.

    from maskq import coco
    document = coco.merge(job.result().rle() for job in batch.jobs)

It needs no server: `rle.json` and `mask.png` of a job are enough.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from maskq.errors import InvalidRequest

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["merge", "panoptic"]

Json = dict[str, Any]


def merge(
    documents: Iterable[Mapping[str, Any]], *, file_name: Callable[[Json], str] | None = None
) -> Json:
    """One document with the images and annotations of all documents; their jobs must use one model.

    documents: from `result.rle()` or `panoptic`; file_name: returns an image's new name, with its
    folders, for its entry (`file_name`, `coco_url`, `job_id` …); default: names stay. Raises
    InvalidRequest for no documents, for different categories, for two images whose names differ only in
    their suffix (tools would take them for one image), and for `file_name` with panoptic documents.
    """
    merged: Json = {}
    names: dict[str, Json] = {}
    for document in documents:
        if not merged:
            merged = {**document, "images": [], "annotations": []}
        if document["categories"] != merged["categories"]:
            jobs = ", ".join(str(image.get("job_id")) for image in document["images"])
            raise InvalidRequest(
                f"the categories of job {jobs} are not those of the documents before it; "
                f"merge documents of one model"
            )
        if file_name and any("segments_info" in found for found in document["annotations"]):
            raise InvalidRequest(
                "file_name= cannot rename the pictures of panoptic documents; rename the image before "
                "panoptic(), by merge([document], file_name=…)"
            )
        for entry in document["images"]:
            image = {**entry, "file_name": file_name(entry)} if file_name else entry
            other = names.setdefault(_stem(image["file_name"]), image)
            if other is not image:
                raise InvalidRequest(
                    f"two images are called {_stem(image['file_name'])!r}: {_place(other)} and "
                    f"{_place(image)}; merge only one of them, or give file_name= to rename them"
                )
            merged["images"].append(image)
        merged["annotations"] += document["annotations"]
    if not merged:
        raise InvalidRequest("merge() got no documents; give the rle() of at least one result")
    return merged


def panoptic(document: Mapping[str, Any], mask: PIL.Image.Image) -> tuple[Json, PIL.Image.Image]:
    """The document in COCO's panoptic format, and the picture of segment ids (RGB).

    document: `result.rle()`; mask: `result.mask()` of the same job. Each class present is one segment,
    whose id is its `category_id`; 0 is no segment. Save the picture as PNG under the `file_name` of the
    document's annotation. Raises InvalidRequest if the two are of different sizes.
    """
    (image,) = document["images"]
    if mask.size != (image["width"], image["height"]):
        raise InvalidRequest(
            f"the mask is {mask.width}x{mask.height} px, the document is of an image of "
            f"{image['width']}x{image['height']} px; both must be of one job"
        )
    kept = ("category_id", "area", "bbox", "iscrowd")
    segments = [
        {"id": found["category_id"], **{key: found[key] for key in kept}}
        for found in document["annotations"]
    ]
    annotation = {
        "image_id": image["id"],
        "file_name": f"{_stem(image['file_name'])}.png",
        "segments_info": segments,
    }
    ids = {found["class_id"]: found["category_id"] for found in document["annotations"]}
    return {**document, "annotations": [annotation]}, _coded(mask, ids)


def _coded(mask: PIL.Image.Image, ids: Mapping[int, int]) -> PIL.Image.Image:
    """R + 256 G + 65536 B = the segment's id; black where there is none."""
    from PIL import Image

    codes = {class_id: segment.to_bytes(3, "little") for class_id, segment in ids.items()}
    if mask.mode == "P":
        picture = mask.copy()
        picture.putpalette(b"".join(codes.get(index, bytes(3)) for index in range(256)))
        return picture.convert("RGB")
    pixels = array("H", mask.tobytes())
    if sys.byteorder == "big":
        pixels.byteswap()
    body = b"".join([codes.get(pixel, bytes(3)) for pixel in pixels])
    return Image.frombytes("RGB", mask.size, body)


def _stem(file_name: str) -> str:
    return str(PurePosixPath(file_name).with_suffix(""))


def _place(image: Json) -> str:
    return f"{image.get('coco_url') or image['file_name']} (job {image.get('job_id')})"
