"""Draws text in any script with the installed fonts, or with Pillow's own font if there are none.

Installed fonts are found by their files, without fontconfig. Each character is drawn by the first font
that has it. If no font has it, its code is drawn ('\\u5929').
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import ImageFont

if TYPE_CHECKING:
    from PIL import ImageDraw
    from PIL.ImageFont import FreeTypeFont

    Font = FreeTypeFont | ImageFont.ImageFont

# Prefixes of file names, the best first. Fonts with many scripts come after fonts that look better.
_PREFERRED: Final = (
    "DejaVuSans.",
    "NotoSans-Regular",
    "NotoSansCJK-Regular",
    "NotoSansCJK",
    "NotoSans",
    "wqy-",
    "DroidSansFallback",
    "NotoColorEmoji",  # Pillow draws it in one size only
    "unifont",
)
_KINDS: Final = frozenset({".ttf", ".otf", ".ttc"})
_MOST: Final = 64  # fonts that are tried for one character
_ABSENT: Final = "\U0010ffff"  # not a character: a font draws its placeholder for it


class Lettering:
    """Fonts of one size."""

    def __init__(self, size: int) -> None:
        """size: px."""
        self._size = size

    def width(self, text: str) -> float:
        """px of one line."""
        return sum(font.getlength(part) for font, part in self._parts(text))

    def draw(self, canvas: ImageDraw.ImageDraw, at: tuple[float, float], text: str) -> None:
        """One line; at: its left end and its middle, px."""
        left, middle = at
        for font, part in self._parts(text):
            canvas.text((left, middle), part, "#202020", font, anchor="lm")
            left += font.getlength(part)

    def _parts(self, text: str) -> Iterator[tuple[Font, str]]:
        """Runs of characters that one font draws."""
        line = " ".join(text.split())
        spelled = "".join(
            one if _font_for(one, self._size) is not None else _code(one) for one in line
        )
        for font, part in groupby(spelled, lambda one: _font_for(one, self._size)):
            yield font or _plain(self._size), "".join(part)


def _code(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()


@lru_cache(maxsize=4096)
def _font_for(character: str, size: int) -> Font | None:
    """The first font that has the character; None if none has."""
    plain = _plain(size)
    if character.isascii() or _has(plain, character):
        return plain
    for path in _installed()[:_MOST]:
        font = _opened(path, size)
        if font is not None and _has(font, character):
            return font
    return None


def _has(font: Font, character: str) -> bool:
    drawn, absent = font.getmask(character), font.getmask(_ABSENT)
    return drawn.size != absent.size or bytes(drawn) != bytes(absent)


@lru_cache(maxsize=16)
def _plain(size: int) -> Font:
    return ImageFont.load_default(size)


@lru_cache(maxsize=256)
def _opened(path: Path, size: int) -> FreeTypeFont | None:
    try:
        return ImageFont.truetype(str(path), size)
    except OSError:  # damaged, or of fixed sizes only
        return None


@lru_cache(maxsize=1)
def _installed() -> tuple[Path, ...]:
    """The font files of the system and the user, the preferred first."""
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    own = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    places = [Path(place) / "fonts" for place in (own, *shared.split(":"))]
    found = [
        Path(folder) / name
        for place in (*places, Path.home() / ".fonts", Path("/System/Library/Fonts"))
        for folder, _, names in os.walk(place)
        for name in names
        if Path(name).suffix.lower() in _KINDS
    ]
    return tuple(sorted(found, key=lambda path: (_rank(path.name), path)))


def _rank(name: str) -> int:
    ranks = [rank for rank, beginning in enumerate(_PREFERRED) if name.startswith(beginning)]
    return min(ranks, default=len(_PREFERRED))
