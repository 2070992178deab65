"""Lines and tables for rich that fit the screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal

from maskq.inert import one_line

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_GAP: Final = 2
_MAY_SHRINK: Final = {"WORKER", "MODEL", "ERROR"}  # where the screen is narrow
_LEAST: Final = 8  # cells of such a column


def line(text: str, style: str = "") -> Text:
    """One harmless line; rich reads no markup in it."""
    from rich.text import Text

    return Text(one_line(text), style=style, no_wrap=True, overflow="ellipsis")


def table(width: int, head: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """`>` before a name: the column is aligned to the right. Names and errors are cut to the width."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold cyan")
    titles = [name.removeprefix(">") for name in head]
    cells = [[line(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    natural = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    for name, title, cells_wide in zip(head, titles, _fitted(titles, natural, width), strict=True):
        justify: Literal["left", "right"] = "left" if name == title else "right"
        made.add_column(title, justify=justify, width=cells_wide, no_wrap=True, overflow="ellipsis")
    for row in cells:
        made.add_row(*row)
    return made


def _fitted(titles: Sequence[str], natural: Sequence[int], width: int) -> list[int]:
    """Widths of the columns: those that may shrink share the room that the others leave."""
    columns = list(zip(titles, natural, strict=True))
    fixed = sum(cells for title, cells in columns if title not in _MAY_SHRINK)
    wanted = sum(cells for title, cells in columns if title in _MAY_SHRINK)
    room = width - fixed - _GAP * (len(titles) - 1)
    if wanted <= room:
        return list(natural)
    return [
        min(cells, max(_LEAST, cells * room // wanted)) if title in _MAY_SHRINK else cells
        for title, cells in columns
    ]
