"""`python -m demo_scenes.ship`: draw the scenes that the package ships, with their true masks."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from maskq_standalone.commands.pictures import SHIPPED, SHIPPED_SEED, drawn_scenes

FOLDER = Path(__file__).parents[2] / "standalone" / "maskq_standalone" / "demo" / "scenes"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for picture in drawn_scenes(SHIPPED_SEED, SHIPPED):
        picture.image.save(FOLDER / f"{picture.name}.webp", quality=90, method=6)
        Image.fromarray(picture.truth).save(FOLDER / f"{picture.name}.png", optimize=True)


if __name__ == "__main__":
    main()
