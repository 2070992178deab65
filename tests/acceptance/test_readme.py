"""The README's client code is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from demo_scenes.scenes import draw
from PIL import Image

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.usefixtures("client")
def test_the_ten_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given the README's first Python block, and a photo.jpg where it is run
    (code,) = re.findall(r"## Ten lines.*?```python\n(.*?)```", README.read_text(), re.DOTALL)
    scene = draw(314, size=(320, 240)).image
    scene.save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)

    # When it is run
    exec(compile(code, "README.md", "exec"), {})

    # Then it leaves what it says
    with Image.open("mask.png") as mask, Image.open("overlay.jpg") as overlay:
        assert mask.mode == "P"
        assert mask.size == overlay.size == scene.size
    assert re.search(r"^\w[\w ]*: \d+%$", capsys.readouterr().out, re.MULTILINE)
