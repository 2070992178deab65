"""What a peer's process is told: one JSON document in its environment."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Final, Self

VARIABLE: Final = "PEER_SETUP"


@dataclass(frozen=True)
class Setup:
    """The S3 endpoint and its credentials come by the AWS chain."""

    model: str  # a directory in the hub's layout
    bucket: str
    redis_url: str
    port: int  # of an HTTP server, on the loopback
    processes: int
    threads: int  # of torch, in each process
    batch: int  # images at most

    @classmethod
    def from_environment(cls) -> Self:
        return cls(**json.loads(os.environ[VARIABLE]))

    def environment(self) -> dict[str, str]:
        # Here, since the peers' own processes need nothing of maskq's.
        from maskq_worker.process.cpu import SPINS

        threads = {"OMP_NUM_THREADS": str(self.threads), "GOMP_SPINCOUNT": SPINS}
        return {VARIABLE: json.dumps(asdict(self)), **threads}
