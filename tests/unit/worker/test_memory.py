"""What malloc keeps, and gives back when it is asked to."""

from __future__ import annotations

import subprocess
import sys

# Blocks too small to be mapped each on its own, and one above them that stays.
_PROGRAM = """
from maskq_worker.process.malloc import trim_malloc
def resident_mib():
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * 4096 / 2**20
blocks = [b"x" * 100_000 for _ in range(1000)]
last = blocks.pop()
del blocks
kept = resident_mib()
trim_malloc()
print(kept - resident_mib())
"""


def test_memory_below_a_block_in_use_goes_back() -> None:
    run = [sys.executable, "-c", _PROGRAM]
    given = float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert 80 < given < 120  # MiB
