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

from maskq_standalone.stack import Stack

CONFIG = Path(__file__).with_suffix(".toml")
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method", "ignored_auth",
)  # fmt: skip


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("schemathesis", help="its command")
    options.add_argument("--examples", type=int, default=30, help="of each kind, for each route")
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = str(write_smallest(Path(folder) / "smallest"))
        with Stack(workers=1, model=model, http_api=True, log_level="WARNING") as stack:
            environment = os.environ | stack.environment
            url = environment["MASKQ_GATEWAY_URL"]
            command = [
                chosen.schemathesis, "--config-file", str(CONFIG), "run", f"{url}/openapi.json",
                "--checks", ",".join(CHECKS), "--exclude-path", "/v1/events",
                "--max-examples", str(chosen.examples), "--seed", str(chosen.seed),
            ]  # fmt: skip
            return subprocess.run(command, env=environment, cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
