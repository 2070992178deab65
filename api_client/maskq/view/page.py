"""Makes the HTML page of a result: image, mask, legend and facts in one file.

The page's content security policy allows its own script and style, by hash, and pictures as data URLs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from maskq.contract.storage_layout import INPUT
from maskq.inert import printable
from maskq.view.pictures import Shade, data_url, fitted, shades, slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from maskq.contract import JobRecord, JobResult

LONGEST_SIDE: Final = 1600  # px of the pictures in the page
_PLACE: Final = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True, slots=True)
class PageContent:
    """The data that a page shows of one job."""

    record: JobRecord
    mask: Image.Image  # mode P or I;16, pixel = class id
    photo: Image.Image | None = None  # RGB, as large as the mask
    confidence: Image.Image | None = None  # mode L, as large as the mask
    notice: str = ""  # shown on the page, e.g. why there is no photo


def page(shown: PageContent) -> str:
    """The page as HTML. Labels, names and metadata are escaped. Raises ValueError without a result."""
    record, result = shown.record, shown.record.result
    if result is None:
        raise ValueError(f"job {record.id} has no result")
    size = fitted(shown.mask.size, LONGEST_SIDE)
    present = shades(shown.mask, result.labels)
    style = _file("look.css") + _file("page.css") + _style(size, present)
    script = _file("stage.js") + _file("page.js")
    name = _name(record)
    values = {
        "policy": _policy(style, script),
        "style": style,
        "script": script,
        "data": _data(shown, size, present),
        "title": _text(name),
        "subtitle": "".join(f"<bdi>{_text(part)}</bdi> " for part in _subtitle(record, result)),
        "notice": f'<p class="notice" role="note">{_text(shown.notice)}</p>'
        if shown.notice
        else "",
        "photo": _photo(shown.photo, size),
        "bare": "" if shown.photo else " bare",
        "count": str(len(present)),
        "legend": "\n".join(_entry(slot, shade) for slot, shade in enumerate(present)),
        "facts": "\n".join(_fact(term, text) for term, text in _facts(record, result)),
    }
    # One pass: a placeholder in inserted text is not replaced.
    return _PLACE.sub(lambda found: values[found[1]], _file("page.html"))


def _text(text: str) -> str:
    """A caller's text as HTML. Escapes markup and characters that reorder or hide text."""
    return escape(printable(text))


def _file(name: str) -> str:
    return files("maskq.view").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    hashes = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    )
    style_hash, script_hash = (f"'sha256-{one}'" for one in hashes)
    return (
        f"default-src 'none'; img-src data:; style-src {style_hash}; script-src {script_hash}; "
        f"base-uri 'none'; form-action 'none'"
    )


def _style(size: tuple[int, int], present: list[Shade]) -> str:
    """The rules that depend on the result: sizes, colours and shares."""
    lines = [f":root {{ --width: {size[0]}; --height: {size[1]}; }}"]
    largest = max((shade.share for shade in present), default=1.0)
    for slot, shade in enumerate(present):
        lines.append(f".colour-{slot} {{ background: rgb{shade.colour}; }}")
        lines.append(f".share-{slot} {{ width: {100 * shade.share / largest:.2f}%; }}")
    return "\n".join(lines) + "\n"


def _data(shown: PageContent, size: tuple[int, int], present: list[Shade]) -> str:
    """The script's input as JSON, in which < and > are escaped, so that it cannot close its element."""
    mask = slots(shown.mask.resize(size, Image.Resampling.NEAREST), present)
    confidence = shown.confidence and shown.confidence.resize(size, Image.Resampling.BOX)
    document: dict[str, Any] = {
        "width": size[0],
        "height": size[1],
        "photo": shown.photo is not None,
        "mask": data_url(mask, "PNG"),
        "confidence": data_url(confidence, "PNG") if confidence else None,
        "classes": [{"label": printable(shade.label), "colour": shade.colour} for shade in present],
    }
    return json.dumps(document).replace("<", "\\u003c").replace(">", "\\u003e")


def _photo(photo: Image.Image | None, size: tuple[int, int]) -> str:
    if photo is None:
        return ""
    small = photo.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    return f'<img id="photo" alt="The image" src="{data_url(small, "JPEG", quality=86)}">'


def _entry(slot: int, shade: Shade) -> str:
    return (
        f'<li><button type="button" class="entry" data-slot="{slot}" aria-pressed="false">'
        f'<span class="swatch colour-{slot}"></span>'
        f'<bdi class="label">{_text(shade.label)}</bdi>'
        f'<span class="percent">{escape(shade.percent)}</span>'
        f'<span class="bar"><span class="share-{slot} colour-{slot}"></span></span></button></li>'
    )


def _fact(term: str, text: str) -> str:
    return f"<div><dt><bdi>{_text(term)}</bdi></dt><dd><bdi>{_text(text)}</bdi></dd></div>"


def _name(record: JobRecord) -> str:
    last = record.request.image_uri.partition("?")[0].rstrip("/").rpartition("/")[2]
    # All uploads have the same name in the store.
    return "Uploaded image" if last in ("", INPUT) else last


def _subtitle(record: JobRecord, result: JobResult) -> Iterator[str]:
    yield result.model
    yield f"{result.width} × {result.height} px"  # noqa: RUF001 - the sign of sizes
    if took := _between(record.started_ms, record.ended_ms):
        yield took
    yield f"job {record.id}"


def _facts(record: JobRecord, result: JobResult) -> Iterator[tuple[str, str]]:
    yield "Job", record.id
    yield "Image", record.request.image_uri
    yield "Size", f"{result.width} × {result.height} px"  # noqa: RUF001
    yield "Model", result.model
    if result.model_revision:
        yield "Revision", result.model_revision
    computed = result.backend, result.dtype, result.precision
    yield "Computed by", ", ".join(part for part in computed if part)
    if result.uncertain_share:
        yield "Uncertain", f"{result.uncertain_share:.2%} of the pixels"
    yield (
        "Submitted",
        f"{datetime.fromtimestamp(record.created_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC",
    )
    if waited := _between(record.created_ms, record.started_ms):
        yield "Waited", waited
    if took := _between(record.started_ms, record.ended_ms):
        yield "Took", took
    if result.timings_ms:
        stages = (f"{stage} {_seconds(ms)}" for stage, ms in result.timings_ms.items())
        yield "Stages", ", ".join(stages)
    if result.notes:
        yield "Notes", "; ".join(result.notes)
    yield from record.request.metadata.items()


def _between(begin_ms: int | None, end_ms: int | None) -> str:
    return "" if begin_ms is None or end_ms is None else _seconds(end_ms - begin_ms)


def _seconds(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"
