"""Labels of a checkpoint and the colour of each class. Imports neither torch nor numpy."""

from __future__ import annotations

import colorsys
import json
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from maskq_worker.model.errors import ModelError

_log = logging.getLogger(__name__)

PALETTE_COLOURS: Final = 256  # what a palette image can hold
_GOLDEN_RATIO: Final = 0.618033988749895  # successive hues never come close to repeating

# color150 of CSAIL's semantic segmentation (BSD-3): RGB of ADE20K's classes 0 (wall) to 149 (flag).
_ADE20K: Final = bytes.fromhex("""
787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07
e005ff ebff07 96053d 787846 08ff33 ff0652 8fff8c ccff04 ff3307 cc4603
0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff
08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207
ff7a08 00ff14 ff0829 ff0599 0633ff eb0cff a09614 00a3ff 8c8c8c fa0a0f
14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff
0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00
008fff 33ff00 0052ff 00ff29 00ffad 0a00ff adff00 00ff99 ff5c00 ff00ff
ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2
00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000
8fff00 5200ff a3ff00 ffeb00 08b8aa 8500ff 00ff5c b800ff ff001f 00b8ff
00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3
ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00
00ccff 1400ff ffff00 0099ff 0029ff 00ffcc 2900ff 29ff00 ad00ff 00f5ff
4700ff 7a00ff 00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff
""")


@cache
def palette(num_labels: int) -> bytes:
    """RGB of classes 0..255, 3 * 256 bytes; black where there is no class.

    150 classes get ADE20K's own colours, any other count distinct ones, the same every time.
    Classes from 256 on share the colour of `id % 256`.
    """
    shown = min(num_labels, PALETTE_COLOURS)
    colours = _ADE20K if num_labels * 3 == len(_ADE20K) else b"".join(map(_colour, range(shown)))
    return colours.ljust(3 * PALETTE_COLOURS, b"\0")


def _colour(index: int) -> bytes:
    hue = index * _GOLDEN_RATIO % 1.0
    saturation = (1.0, 0.6, 0.8)[index % 3]
    value = (1.0, 0.75)[index // 3 % 2]
    return bytes(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))


def read_labels(directory: Path) -> tuple[str, ...]:
    """The label of every class, by class id, as transformers reads them from config.json.

    Without `id2label` there are `num_labels` of them (default: 2), called LABEL_0 and so on; so are
    those that `id2label` leaves out. Raises ModelError.
    """
    path = directory / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    labels = labels_of(config, path)
    unnamed = [index for index, label in enumerate(labels) if label == f"LABEL_{index}"]
    if unnamed and config.get("id2label") is not None and len(unnamed) < len(labels):
        _log.warning(
            "%s leaves out the label of class %d: such classes are called LABEL_%d and so on",
            path, unnamed[0], unnamed[0],
        )  # fmt: skip
    return labels


def labels_of(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The same; config: of config.json, which lies at `path`."""
    given = config.get("id2label")
    try:
        if given is None:
            given = dict.fromkeys(range(config.get("num_labels", 2)))
        by_id = {int(key): label for key, label in given.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: neither does id2label map class ids to labels, nor is num_labels their number"
        ) from error
    if not by_id:
        raise ModelError(f"{path} describes a network without classes")
    return tuple(
        f"LABEL_{index}" if by_id.get(index) is None else _text(by_id[index])
        for index in range(len(by_id))
    )


def _text(label: object) -> str:
    """As UTF-8 can hold it: half of a surrogate pair becomes U+FFFD."""
    halves = str(label).strip().encode("utf-16", "surrogatepass")
    return halves.decode("utf-16", "replace")
