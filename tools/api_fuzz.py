"""`make api-fuzz`: schemathesis asks the whole HTTP API, by its OpenAPI document, a running stack.

It must get no 5xx and no answer that the document does not name: status, content type, headers, schema.
schemathesis has a virtual environment of its own, since its requirements conflict with those of others.
`GET /v1/events` is left out: its answer has no end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.checkpoints import write_smallest
from PIL import Image

from maskq import Client
from maskq_standalone.stack import Stack

CONFIG = Path(__file__).with_suffix(".toml")
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method", "ignored_auth",
)  # fmt: skip


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("schemathesis", type=Path, help="its command")
    options.add_argument("--examples", type=int, default=30, help="of each kind, for each route")
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = str(write_smallest(Path(folder) / "smallest"))
        with Stack(workers=1, model=model, http_api=True, log_level="WARNING") as stack:
            os.environ.update(stack.environment)
            environment = os.environ | known_records()
            url = environment["MASKQ_GATEWAY_URL"]
            command = [
                str(chosen.schemathesis.absolute()), "--config-file", str(CONFIG),
                "run", f"{url}/openapi.json", "--exclude-path", "/v1/events",
                "--checks", ",".join(CHECKS),
                "--max-examples", str(chosen.examples), "--seed", str(chosen.seed),
            ]  # fmt: skip
            return subprocess.run(command, env=environment, cwd=folder, check=False).returncode


def known_records() -> dict[str, str]:
    """Variables of api_fuzz.toml: a job that has outputs, and a batch."""
    with Client.from_env() as client:
        image = Image.new("RGB", (60, 40), "teal")
        job = client.submit(image, outputs=["mask", "binary", "stats"])
        job.wait(60)
        batch = client.submit_many([image, image])
        return {"FUZZED_JOB": job.id, "FUZZED_BATCH": batch.id}


if __name__ == "__main__":
    sys.exit(main())
