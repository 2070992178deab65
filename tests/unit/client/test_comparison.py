"""What pairs of masks show: the share that differs, the classes, the images."""

from __future__ import annotations

from PIL import Image

from maskq.cli.comparison.findings import Findings, lines_of
from maskq.cli.comparison.masks import Differences, confusion


def mask_of(row: bytes) -> Image.Image:
    return Image.frombytes("P", (len(row), 1), row)


def test_masks_of_the_same_pixels_agree() -> None:
    differences = Differences()
    differences.add("a", confusion(mask_of(b"\0\1\2"), mask_of(b"\0\1\2")), {})
    assert differences.share == 0.0
    assert differences.confusions(5) == []
    assert differences.iou() == {0: 1.0, 1: 1.0, 2: 1.0}


def test_the_classes_that_differ_most_come_first() -> None:
    differences = Differences()
    differences.add("a", confusion(mask_of(b"\0\0\0\1\2"), mask_of(b"\1\1\0\0\2")), {})
    differences.add("b", confusion(mask_of(b"\2\2\2\2\2"), mask_of(b"\2\2\2\2\1")), {})
    assert differences.confusions(5) == [((0, 1), 0.2), ((1, 0), 0.1), ((2, 1), 0.1)]
    assert differences.confusions(1) == [((0, 1), 0.2)]


def test_the_report_names_classes_and_what_was_left_out() -> None:
    findings = Findings()
    pair = confusion(mask_of(b"\0\0\0\1"), mask_of(b"\0\0\1\1"))
    findings.differences.add("a.png", pair, {0: "sky", 1: "road"})
    findings.models["old at r1"] += 1
    findings.skipped["old failed: invalid_image"] += 2
    document = findings.document()
    assert document["differing_share"] == 0.25
    assert document["confusions"] == [
        {"first": {"id": 0, "label": "sky"}, "second": {"id": 1, "label": "road"}, "share": 0.25}
    ]
    text = "\n".join(lines_of(document, what="images", count=1, worst=["  25.0000%  a.png"]))
    assert "1 images compared; 25.0000% of the pixels differ" in text
    assert "  sky  road  25.0000%" in text
    assert "  2 images: old failed: invalid_image" in text


def test_a_report_of_nothing() -> None:
    document = Findings().document()
    assert (document["differing_share"], document["classes"]) == (0.0, [])
    assert lines_of(document, what="images", count=0, worst=[])
