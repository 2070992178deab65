"""The LitServe peer: `python -m bench.peers.litserve_server`."""

from __future__ import annotations

import litserve

from bench.peers.segment import Segment
from bench.peers.setup import Setup


class Segmentation(litserve.LitAPI):
    """POST {"key": …} to /predict returns {"mask": …}."""

    def setup(self, device: str) -> None:
        self.segment = Segment(Setup.from_environment())

    def decode_request(self, request: dict[str, str]) -> str:
        return request["key"]

    def predict(self, keys: list[str]) -> list[str]:
        return self.segment(keys)

    def encode_response(self, mask: str) -> dict[str, str]:
        return {"mask": mask}


def main() -> None:
    setup = Setup.from_environment()
    api = Segmentation(max_batch_size=setup.batch, batch_timeout=0.05)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=setup.processes, timeout=False
    )
    server.run(host="127.0.0.1", port=setup.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
