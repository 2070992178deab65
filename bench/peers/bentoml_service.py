"""The BentoML peer: `bentoml serve bench.peers.bentoml_service:Segmentation`."""

import os

import bentoml

from bench.peers.segment import Segment
from bench.peers.setup import Setup
from maskq.process.parent_death import die_with_parent

SETUP = Setup.from_environment()
HOUR_S = 3600  # requests are never turned away for their age


@bentoml.service(workers=SETUP.processes, traffic={"timeout": HOUR_S})
class Segmentation:
    """POST {"keys": [key]} to /segment returns [mask]; requests are gathered into batches."""

    def __init__(self) -> None:
        die_with_parent(os.getppid())  # its workers lead sessions of their own
        self.run = Segment(SETUP)

    @bentoml.api(
        batchable=SETUP.batch > 1,
        max_batch_size=max(2, SETUP.batch),  # it refuses 1
        max_latency_ms=1000 * HOUR_S,
    )
    def segment(self, keys: list[str]) -> list[str]:
        # Its dispatcher trains on the first requests: empty ones, so that images need not wait for it.
        wanted = [key for key in keys if key]
        masks = dict(zip(wanted, self.run(wanted), strict=True)) if wanted else {}
        return [masks.get(key, "") for key in keys]
