"""The memory set aside for an image is what decoding it takes; all of them: bench.decode_memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.decode_samples import samples

from maskq_worker.decoding.headers import format_of
from maskq_worker.decoding.memory import PIXEL_BYTES

ROOT = Path(__file__).parents[3]
SIZE = (2048, 1536)
WORST = ("JPEG CMYK progressive", "WebP see-through turned")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", WORST)
def test_no_image_takes_more_than_is_set_aside(name: str, tmp_path: Path) -> None:
    data = dict(samples(*SIZE))[name]()
    (tmp_path / "image").write_bytes(data)
    path = ":".join(entry for entry in [str(ROOT), *sys.path] if entry)
    ran = subprocess.run(
        [sys.executable, "-m", "bench.decode_memory", "--child", str(tmp_path / "image")],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": path},
    )  # fmt: skip
    a_pixel = json.loads(ran.stdout)["VmHWM"] / (SIZE[0] * SIZE[1])
    assert PIXEL_BYTES[format_of(data)] / 2 < a_pixel < PIXEL_BYTES[format_of(data)]
