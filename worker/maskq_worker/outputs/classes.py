"""The classes that a job selects, and their colours."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from maskq.contract import FailureCode
from maskq.contract.jobs import ClassStats
from maskq_worker.errors import PermanentError
from maskq_worker.model.checkpoint.labels import PALETTE_COLOURS, palette

if TYPE_CHECKING:
    from numpy.typing import NDArray


def chosen(names: Collection[str] | None, labels: Sequence[str]) -> frozenset[int] | None:
    """The ids of the classes named by label or id. None means every class.

    A label that several classes have selects all of them. Raises PermanentError `invalid_request`, with
    similar names, for a class that the model does not have.
    """
    if names is None:
        return None
    ids: set[int] = set()
    for name in sorted(names):
        found = [index for index, label in enumerate(labels) if label == name]
        if not found and name.isascii() and name.isdigit() and int(name) < len(labels):
            found = [int(name)]
        if not found:
            raise PermanentError(FailureCode.INVALID_REQUEST, _unknown_class(name, labels))
        ids.update(found)
    return frozenset(ids)


def only(mask: NDArray[Any], ids: frozenset[int] | None, num_labels: int) -> NDArray[Any]:
    """The mask with 255 (65535 in a mask of 16 bits) in place of every class that is not in `ids`.

    If 255 is a class, the returned mask has 16 bits.
    """
    if ids is None:
        return mask
    wide = mask.dtype == np.uint16 or num_labels >= PALETTE_COLOURS
    table = np.full(max(num_labels, int(mask.max()) + 1), 65535 if wide else 255, dtype=np.uint16)
    kept = sorted(ids)
    table[kept] = kept
    filtered: NDArray[Any] = table.astype(np.uint16 if wide else np.uint8)[mask]
    return filtered


def colours(classes: Sequence[ClassStats], num_labels: int) -> dict[int, str]:
    """Class id → '#rrggbb', as in masks and overlays."""
    return {entry.id: f"#{bytes(rgb(entry.id, num_labels)).hex()}" for entry in classes}


def palette_of(num_labels: int) -> list[str]:
    """'#rrggbb' of each class, by its id, as in masks and overlays; of the first 256 classes."""
    shown = range(min(num_labels, PALETTE_COLOURS))
    return [f"#{bytes(rgb(class_id, num_labels)).hex()}" for class_id in shown]


def _unknown_class(name: str, labels: Sequence[str]) -> str:
    by_folded = {label.casefold(): label for label in labels}
    near = difflib.get_close_matches(name.casefold(), list(by_folded), n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(repr(by_folded[one]) for one in near)}?" if near else ""
    rest = hint or f"its classes are 0 ({labels[0]}) to {len(labels) - 1} ({labels[-1]})"
    return f"classes: the model has no class {name!r}; {rest}"


def rgb(class_id: int, num_labels: int) -> tuple[int, int, int]:
    """0..255 each, as in masks and overlays."""
    at = class_id % PALETTE_COLOURS * 3
    red, green, blue = palette(num_labels)[at : at + 3]
    return red, green, blue
