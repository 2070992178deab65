"""Former releases of maskq: what they wrote into Redis and S3, kept as files for tests.

`python -m tools.releases` writes the files of the present version; docs/upgrading.md says when.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

# The release that `make upgrade-test` runs beside the present version: a tag or a commit.
PREVIOUS: Final = "09684a8"

ROOT: Final = Path(__file__).parents[2]
FIXTURES: Final = ROOT / "tests/fixtures/releases"
