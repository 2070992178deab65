"""The page that `maskq view` writes: text stays text, nothing is fetched, the numbers are right."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from images import drawn
from PIL import Image

from maskq import InvalidRequest
from maskq.contract import JobRecord, JobResult
from maskq.inert import printable
from maskq.view import PageContent, open_photo, page
from maskq.view.notebook import html, png
from maskq.view.pictures import NO_CLASS, coloured, fitted, shades, slots

HOSTILE = (
    "</script><script>alert(1)</script></script x <!--<script>"
    '"><img src=https://evil.example/x>{{data}}{{facts}}{{script}}\u2028'
)
VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """What a browser makes of it: elements with their attributes, and the text in each kind."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self) -> dict[str, Any]:
        [text] = [
            text
            for text, attributes in zip(self.texts["script"], self.all("script"), strict=True)
            if attributes.get("type") == "application/json"
        ]
        assert "<" not in text  # a browser takes more for the end of a script than this parser does
        read: dict[str, Any] = json.loads(text)
        return read


def record(labels: dict[int, str], **changes: Any) -> JobRecord:
    result = {
        "width": 8, "height": 4, "model": "org/name", "model_revision": "abc", "dtype": "float16",
        "labels": labels, "notes": ["rotated upright"], "timings_ms": {"model": 1234.5, "store": 7},
    }  # fmt: skip
    fields: dict[str, Any] = {
        "id": "job-1", "status": "succeeded", "model": "org/name", "priority": "normal",
        "max_attempts": 3, "created_ms": 1_767_323_045_000, "started_ms": 1_767_323_045_250,
        "ended_ms": 1_767_323_046_750, "result": result,
        "request": {"image_uri": "s3://photos/summer/harbour.jpg"},
    }  # fmt: skip
    return JobRecord.model_validate(fields | changes)


def mask_of(*rows: list[int]) -> Image.Image:
    mask = Image.fromarray(np.array(rows, np.uint8))
    mask.putpalette(bytes(part for i in range(256) for part in (i, 255 - i, 7)))
    return mask


MASK = mask_of([2] * 8, [2] * 8, [2] * 5 + [12] * 3, [255] * 8)
LABELS = {2: "sky", 12: "person"}


def decoded(url: str) -> Image.Image:
    head, _, body = url.partition(";base64,")
    assert head in ("data:image/png", "data:image/jpeg")
    return Image.open(io.BytesIO(base64.b64decode(body)))


def test_the_mask_is_in_it_as_places_in_the_legend() -> None:
    shown = Page(page(PageContent(record(LABELS), MASK)))
    slots_of_mask = np.asarray(decoded(shown.data["mask"]))
    expected = [[0] * 8, [0] * 8, [0] * 5 + [1] * 3, [NO_CLASS] * 8]
    assert slots_of_mask.tolist() == expected
    assert shown.data["classes"] == [
        {"label": "sky", "colour": [2, 253, 7]},
        {"label": "person", "colour": [12, 243, 7]},
    ]


def test_the_legend_lists_classes_by_share_of_the_whole_image() -> None:
    shown = Page(page(PageContent(record(LABELS), MASK)))
    entries = [one for one in shown.all("button") if one.get("class") == "entry"]
    assert [one["data-slot"] for one in entries] == ["0", "1"]
    text = re.sub("<[^>]+>", " ", page(PageContent(record(LABELS), MASK)))
    assert re.search(r"sky\s+65\.6 %", text)
    assert re.search(r"person\s+9\.4 %", text)


def test_facts_of_the_job_stand_in_it() -> None:
    text = page(
        PageContent(
            record(
                LABELS, request={"image_uri": "s3://photos/job-1/input", "metadata": {"a": "7"}}
            ),
            MASK,
        )
    )
    for fact in (
        "Uploaded image", "job-1", "org/name", "abc", "transformers, float16", "8 × 4 px",  # noqa: RUF001
        "2026-01-02 03:04:05 UTC", "250 ms", "1.5 s", "model 1.2 s, store 7 ms", "rotated upright",
    ):  # fmt: skip
        assert fact in text, fact
    assert "harbour.jpg" in page(PageContent(record(LABELS), MASK))


def test_hostile_text_stays_text() -> None:
    labels = {2: HOSTILE, 12: "</style><b>"}
    hostile = record(
        labels,
        id=HOSTILE,
        request={
            "image_uri": f"s3://photos/{HOSTILE}",
            "metadata": {HOSTILE: HOSTILE, "onload": "x' onload='y"},
        },
        result={
            "width": 8, "height": 4, "model": HOSTILE, "model_revision": HOSTILE, "labels": labels,
            "backend": HOSTILE, "notes": [HOSTILE], "timings_ms": {HOSTILE: 1.0},
        },
    )  # fmt: skip
    shown = Page(page(PageContent(hostile, MASK, notice=HOSTILE)))
    plain = Page(page(PageContent(record(LABELS), MASK, notice="x")))
    allowed = {tag for tag, _ in plain.elements}
    assert len(shown.all("script")) == len(plain.all("script")) == 2
    assert {tag for tag, _ in shown.elements} <= allowed
    assert shown.all("img") == []
    attributes = {name for _, found in shown.elements for name in found}
    assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert [one["label"] for one in shown.data["classes"]] == [printable(HOSTILE), "</style><b>"]
    assert printable(HOSTILE) in shown.texts["bdi"]


def test_its_policy_allows_its_own_script_and_style_and_nothing_from_outside() -> None:
    photo = Image.new("RGB", MASK.size, "teal")
    text = page(PageContent(record(LABELS), MASK, photo, Image.new("L", MASK.size, 200)))
    shown = Page(text)
    [policy] = [
        one["content"] or "" for one in shown.all("meta") if one.get("http-equiv") is not None
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
    script = next(one for one in shown.texts["script"] if "class Stage" in one)
    for kind, inline in (("script", script), ("style", shown.texts["style"][0])):
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
    assert text.index("Content-Security-Policy") < text.index("<style>")
    for _, attributes in shown.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"https?://|@import|url\(|\bfetch\b|XMLHttp|WebSocket|\beval\b", text)
    assert "{{" not in text


def test_the_photo_and_confidence_are_in_it_small() -> None:
    size = (4000, 3000)
    mask = Image.new("P", size, 2)
    photo, confidence = Image.new("RGB", size, (200, 100, 50)), Image.new("L", size, 200)
    shown = Page(page(PageContent(record(LABELS), mask, photo, confidence)))
    [image] = shown.all("img")
    for url in (image["src"] or "", shown.data["mask"], shown.data["confidence"]):
        assert decoded(url).size == (1600, 1200)
    assert np.asarray(decoded(shown.data["confidence"])).min() == 200
    assert (shown.data["width"], shown.data["height"], shown.data["photo"]) == (1600, 1200, True)


def test_without_a_photo_it_says_why() -> None:
    text = page(PageContent(record(LABELS), MASK, notice="it is gone"))
    assert "it is gone" in Page(text).texts["p"]
    assert "<img" not in text
    assert Page(text).data["photo"] is False


def test_what_has_no_result_has_no_page() -> None:
    with pytest.raises(ValueError, match="job-1 has no result"):
        page(PageContent(record(LABELS, status="failed", result=None), MASK))


class TestPictures:
    def test_a_mask_of_16_bits_gets_colours_of_its_own(self) -> None:
        mask = Image.fromarray(np.array([[0, 300, 300, 65535]], np.uint16))
        found = shades(mask, {0: "a", 300: "b"})
        assert [(one.id, one.share) for one in found] == [(300, 0.5), (0, 0.25)]
        assert found[0].colour != found[1].colour
        assert np.asarray(slots(mask, found)).tolist() == [[1, 0, 0, NO_CLASS]]

    def test_more_classes_than_slots_leave_the_smallest_out(self) -> None:
        ids = np.arange(600, dtype=np.uint16).repeat(np.arange(600, 0, -1))[None]
        found = shades(Image.fromarray(ids), {i: str(i) for i in range(600)})
        assert [one.id for one in found] == list(range(255))
        placed = np.asarray(slots(Image.fromarray(ids), found))[0]
        assert np.array_equal(placed, np.minimum(ids[0], NO_CLASS))

    def test_coloured_shows_each_class_in_its_own(self) -> None:
        picture = np.asarray(coloured(MASK, shades(MASK, LABELS)).convert("RGB"))
        assert picture[0, 0].tolist() == [2, 253, 7]
        assert picture[2, 7].tolist() == [12, 243, 7]
        assert picture[3, 0].tolist() == [0, 0, 0]

    @pytest.mark.parametrize(
        ("size", "fits"),
        [((4000, 3000), (1600, 1200)), ((30, 20), (30, 20)), ((65_500, 1), (1600, 1))],
    )
    def test_nothing_is_enlarged(self, size: tuple[int, int], fits: tuple[int, int]) -> None:
        assert fitted(size, 1600) == fits


class TestPhoto:
    def saved(self, image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    def test_is_turned_upright(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        lying = Image.new("RGB", (16, 8), "red")
        lying.paste("blue", (0, 0, 8, 8))
        photo = open_photo(self.saved(lying, "JPEG", exif=exif, quality=95), (8, 16))
        assert photo.size == (8, 16)
        assert (np.asarray(photo)[2, 4] > 128).tolist() == [False, False, True]

    @pytest.mark.parametrize(
        ("image", "colour"),
        [
            (Image.new("RGBA", (4, 2), (255, 0, 0, 0)), [255, 255, 255]),
            (Image.new("L", (4, 2), 99), [99, 99, 99]),
            (Image.fromarray(np.full((2, 4), 0x8142, np.uint16)), [0x81, 0x81, 0x81]),
            (Image.new("1", (4, 2), 1), [255, 255, 255]),
        ],
        ids=["transparent", "gray", "16-bit", "1-bit"],
    )
    def test_of_any_mode_is_rgb(self, image: Image.Image, colour: list[int]) -> None:
        photo = open_photo(self.saved(image), (4, 2))
        assert (photo.mode, np.asarray(photo)[1, 3].tolist()) == ("RGB", colour)

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", "cannot be decoded"),
            (b"<svg/>", "cannot be decoded"),
            (b"\x89PNG\r\n\x1a\ncut", "cannot be decoded"),
        ],
    )
    def test_that_is_none_is_told(self, body: bytes, said: str) -> None:
        with pytest.raises(InvalidRequest, match=said):
            open_photo(body, (4, 2))

    def test_of_another_size_is_another_photo(self) -> None:
        with pytest.raises(InvalidRequest, match="5x2 px, the result is of 4x2"):
            open_photo(self.saved(Image.new("RGB", (5, 2))), (4, 2))
        with pytest.raises(InvalidRequest, match="2x4"):
            open_photo(self.saved(Image.new("RGB", (2, 4))), (4, 2))

    def test_that_claims_to_be_vast_is_not_decoded(self) -> None:
        bomb = drawn.png(np.zeros((1, 1, 1), np.uint8), 1, 0, size=(30_000, 20_000))
        with pytest.raises(InvalidRequest, match="decompression bomb"):
            open_photo(bomb, (4, 2))


def test_a_notebook_gets_a_small_picture_and_escaped_text() -> None:
    result = JobResult(width=8, height=4, model=HOSTILE, labels={2: HOSTILE})
    text = html(HOSTILE, result, Image.new("RGB", (2048, 10)))
    assert [tag for tag, _ in Page(text).elements] == ["figure", "img", "figcaption", "br"]
    assert printable(HOSTILE) in "".join(Page(text).texts["figcaption"])
    assert Image.open(io.BytesIO(png(Image.new("RGB", (2048, 10))))).size == (1024, 5)


def test_a_page_needs_no_numpy() -> None:
    code = (
        "import sys, maskq.view\n"
        "print([m for m in ('numpy', 'boto3', 'torch') if m in sys.modules])\n"
        "import maskq\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
