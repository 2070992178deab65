"""Labels of any script in the legend: drawn by a font that has them, or spelled out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from support.tiny_font import write_font

from maskq.contract import Output
from maskq_worker.model import ModelOutput
from maskq_worker.outputs import OverlayStyle, encode, fonts
from maskq_worker.outputs.fonts import Lettering

LABELS = [
    "sky", "天空", "السماء", "небо", "ουρανός", "आकाश", "🌳", "a\nb\tc", "", " ", "x" * 500, "e\u0301",
    "\u200b", "\ufffd", "\0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _looked_for_anew() -> Iterator[None]:
    for cached in (fonts._installed, fonts._font_for, fonts._opened):
        cached.cache_clear()
    yield
    for cached in (fonts._installed, fonts._font_for, fonts._opened):
        cached.cache_clear()


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No font but Pillow's own; a font put into the folder is found."""
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "fonts").mkdir()
    return tmp_path / "fonts"


def drawn(text: str, size: int = 20) -> np.ndarray:
    image = Image.new("RGB", (1200, 40), "white")
    Lettering(size).draw(ImageDraw.Draw(image), (4, 20), text)
    return np.asarray(image)


@pytest.mark.parametrize("label", LABELS)
def test_every_label_is_drawn(label: str) -> None:
    mask = np.array([[0, 0, 1]], dtype=np.uint8).repeat(400, axis=1).repeat(300, axis=0)
    [artifact] = encode(
        frozenset({Output.OVERLAY}),
        image=Image.new("RGB", (1200, 300)),
        output=ModelOutput(mask, None, None),
        labels=[label, "other"],
        style=OverlayStyle(legend=True),
    )
    assert artifact.body.startswith(b"\xff\xd8")
    assert Lettering(20).width(label) >= 0


@pytest.mark.parametrize("label", LABELS)
def test_every_label_is_stored_as_it_is(label: str) -> None:
    mask = np.zeros((2, 2), np.uint8)
    for output in (Output.STATS, Output.RLE):
        [artifact] = encode(
            frozenset({output}),
            image=Image.new("RGB", (2, 2)),
            output=ModelOutput(mask, None, None),
            labels=[label],
        )
        document = json.loads(artifact.body.decode())
        found = document["classes" if output is Output.STATS else "categories"][0]
        # A COCO category has a name in any case (outputs/coco.py).
        stored = "class (0)" if output is Output.RLE and not label else label
        assert found["label" if output is Output.STATS else "name"] == stored


def test_without_a_font_for_it_a_character_is_spelled_out(nothing_installed: Path) -> None:
    assert np.array_equal(drawn("a 天 🌳 b"), drawn(r"a \u5929 \U0001f333 b"))


def test_an_installed_font_draws_what_pillow_s_own_lacks(nothing_installed: Path) -> None:
    found = nothing_installed / "DejaVuSans.ttf"
    spelled = drawn("небо")
    write_font(found, "небо")
    (nothing_installed / "broken.ttf").write_bytes(b"no font")
    (nothing_installed / "AAA.ttf").write_bytes(b"no font")
    for cached in (fonts._installed, fonts._font_for, fonts._opened):
        cached.cache_clear()
    assert fonts._installed()[0].name == "DejaVuSans.ttf"
    expected = Image.new("RGB", (1200, 40), "white")
    font = ImageFont.truetype(str(found), 20)
    ImageDraw.Draw(expected).text((4, 20), "небо", "#202020", font, anchor="lm")
    assert np.array_equal(drawn("небо"), np.asarray(expected))
    assert not np.array_equal(drawn("небо"), spelled)
    assert np.array_equal(drawn("a\nb"), drawn("a b"))


def test_plain_labels_need_no_font_file(nothing_installed: Path) -> None:
    drawn("traffic light")
    assert fonts._installed.cache_info().currsize == 0
