"""`make sbom`: a software bill of materials (CycloneDX 1.6) of each image, from the lock files.

It names the Python packages with their versions, hashes and, if they are installed here, licences. It
does not name the packages of the base image: scan the image for these.
"""

from __future__ import annotations

import json
import sys
import tomllib
import uuid
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from urllib.parse import quote

from check_licences import licences_of
from locked import Pin, read

ROOT = Path(__file__).parents[1]
LOCKS = {
    "cpu": ("worker.txt", "torch-cpu.txt"),
    "cuda": ("worker.txt", "torch-cuda.txt"),
    "gateway": ("gateway.txt",),
}


def document(build: str) -> str:
    """Of the worker's image with torch's build for `cpu` or `cuda`, or of the gateway's image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = project["version"]
    components = [_component(pin) for lock in LOCKS[build] for pin in read(lock)]
    components.sort(key=lambda one: one["name"])
    content = json.dumps(components, sort_keys=True)
    return json.dumps(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
            "version": 1,
            "metadata": {
                "component": {
                    "type": "application",
                    "bom-ref": "maskq",
                    "name": "maskq",
                    "version": version,
                    "purl": f"pkg:pypi/maskq@{version}",
                    "licenses": [{"license": {"id": project["license"]}}],
                }
            },
            "components": components,
        },
        indent=2,
    )


def _component(pin: Pin) -> dict[str, object]:
    purl = f"pkg:pypi/{pin.name}@{quote(pin.version)}"
    try:
        licences = [{"license": {"name": name}} for name in licences_of(pin.name)]
    except PackageNotFoundError:
        licences = []
    return {
        "type": "library",
        "bom-ref": purl,
        "name": pin.name,
        "version": pin.version,
        "purl": purl,
        **({"licenses": licences} if licences else {}),
        "externalReferences": [
            {
                "type": "distribution",
                "url": f"https://pypi.org/project/{pin.name}/",
                "comment": "one of these files",
                "hashes": [{"alg": "SHA-256", "content": found} for found in pin.hashes],
            }
        ],
    }


if __name__ == "__main__":
    folder = ROOT / "dist"
    folder.mkdir(exist_ok=True)
    for build in LOCKS:
        file = folder / f"maskq-{build}.cdx.json"
        file.write_text(document(build) + "\n")
        print(file.relative_to(ROOT), file=sys.stderr)
