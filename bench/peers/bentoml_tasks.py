"""The peer of BentoML's task queue: `bentoml serve bench.peers.bentoml_tasks:Segmentation`."""

import os

import bentoml

from bench.peers.segment import Segment
from bench.peers.setup import Setup
from maskq.process.parent_death import die_with_parent

SETUP = Setup.from_environment()
HOUR_S = 3600  # a task is never given up for its age


@bentoml.service(workers=SETUP.processes, traffic={"timeout": HOUR_S})
class Segmentation:
    """POST {"key": key} to /segment/submit returns {"task_id": …}, /segment/get [mask]."""

    def __init__(self) -> None:
        die_with_parent(os.getppid())  # its workers lead sessions of their own
        self.run = Segment(SETUP)

    @bentoml.task
    def segment(self, key: str) -> list[str]:
        return self.run([key])
