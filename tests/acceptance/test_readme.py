"""The README's code is run as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from support.pages import ROOT, run

from maskq import Client


def test_readme_code_leaves_a_mask(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.radial_gradient("L").convert("RGB").resize((320, 240)).save("photo.jpg")
    run("README.md", {})
    saved = sorted(Path("masks").iterdir())
    assert "photo.mask.png" in {path.name for path in saved}
    for path in saved:
        with Image.open(path) as mask:
            assert (mask.mode, mask.size) == ("P", (320, 240))
    (by_shell, by_python) = client.list(limit=2).records
    assert by_shell.status == by_python.status == "succeeded"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 90
