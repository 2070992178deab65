"""How many bytes a pixel decoding takes, by format and mode, at its peak.

`python -m bench.decode_memory`. Each image is decoded in a process of its own. Printed are the peak of
resident memory and the peak of address space above what the process had with the file read, divided by
the number of pixels, and beside them what `maskq_worker/decoding/memory.py` sets aside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.decode_samples import samples
from maskq_worker.decoding import headers
from maskq_worker.decoding.memory import PIXEL_BYTES


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", default="4096x3072", help="of the images, px")
    options.add_argument("--only", default="", help="names that contain this")
    options.add_argument("--child", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child:
        print(json.dumps(peaks(Path(chosen.child))))
        return
    width, height = map(int, chosen.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image"
        print(f"{'bytes a pixel':<32}{'resident':>9}{'address space':>15}{'set aside':>11}")
        for name, make in samples(width, height):
            if chosen.only.lower() not in name.lower():
                continue
            data = make()
            file.write_bytes(data)
            command = [sys.executable, "-m", "bench.decode_memory", "--child", str(file)]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            peak = json.loads(ran.stdout)
            each = {kind: value / (width * height) for kind, value in peak.items()}
            aside = PIXEL_BYTES[headers.format_of(data)]
            more = "  MORE" if max(each.values()) > aside else ""
            print(
                f"{name:<32}{each['VmHWM']:>9.1f}{each['VmPeak']:>15.1f}{aside:>11}{more}",
                flush=True,
            )


def peaks(file: Path) -> dict[str, int]:
    """Bytes above what there was before, of VmHWM (resident) and VmPeak (address space)."""
    import io

    from PIL import Image

    from maskq_worker.imaging import decode

    small = io.BytesIO()
    Image.new("RGB", (9, 9)).save(small, "PNG")
    decode(small.getvalue(), max_pixels=10**9)  # what is loaded at the first use
    data = file.read_bytes()
    before = _status()
    decode(data, max_pixels=10**9)
    after = _status()
    return {
        "VmHWM": after["VmHWM"] - before["VmRSS"],
        "VmPeak": after["VmPeak"] - before["VmSize"],
    }


def _status() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {
        name: int(rest.split()[0]) * 1024
        for name, _, rest in (line.partition(":") for line in lines)
        if name.startswith("Vm")
    }


if __name__ == "__main__":
    main()
