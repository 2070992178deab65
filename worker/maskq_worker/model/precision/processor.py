"""Which arithmetic this CPU is fast in."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CPUINFO: Final = Path("/proc/cpuinfo")
# Instructions that multiply numbers of 16 bits, the fastest first, as Linux names them.
_HALF: Final = {
    "bfloat16": ("amx_bf16", "avx512_bf16", "bf16"),
    "float16": ("amx_fp16", "avx512_fp16", "fphp"),
}


def half_precision_units(dtype: str, cpuinfo: Path = CPUINFO) -> str | None:
    """The fastest instructions of this CPU for a type; None: it has none, or that is unknown.

    dtype: bfloat16 | float16.
    """
    if not cpuinfo.is_file():
        return None
    flags = set(cpuinfo.read_text(encoding="utf-8", errors="replace").split())
    return next((name for name in _HALF[dtype] if name in flags), None)
