"""The tests of a caller's day, in an environment with the wheel and the HTTP client's needs alone."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from support.base_install import ROOT, install
from support.transports import connected

SUITE = ("test_nominal.py", "test_bad_input.py")
LEAST = 30  # tests; the others of these files need Redis, S3 or the worker's process


@pytest.mark.usefixtures("credentials")
def test_the_suite_over_http_needs_neither_redis_nor_boto3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given the wheel beside pytest and numpy, and none of what only the service needs
    commands = install(tmp_path, "pytest", "numpy")
    settings = tmp_path / "pytest.ini"
    settings.write_text("[pytest]\nfilterwarnings = error\n")
    files = [str(ROOT / "tests" / "acceptance" / name) for name in SUITE]
    options = ["--noconftest", "-p", "support.http_only", "-p", "no:cacheprovider", "-c", settings]

    # When the tests run there against a gateway
    with connected("http", monkeypatch):
        env = {
            "PATH": "",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "tests", ROOT / "tools"))),
            "PYTHONDONTWRITEBYTECODE": "1",
            **{name: value for name, value in os.environ.items() if name in GATEWAY},
        }
        ran = subprocess.run(
            [commands / "python", "-m", "pytest", *options, "--import-mode=importlib", *files],
            env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    # Then they pass
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed, ran.stdout[-500:]
    assert int(passed[1]) >= LEAST


GATEWAY = ("MASKQ_GATEWAY_URL", "MASKQ_API_KEY", "MASKQ_TRANSPORT")
