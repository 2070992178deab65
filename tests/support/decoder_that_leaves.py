"""A decoding process that says it is ready, and ends before it takes an image."""

from __future__ import annotations

import os

from maskq_worker.decoding import child
from maskq_worker.decoding.messages import Ready, send


class Service(child.Service):
    def run(self) -> None:
        send(self._worker, Ready())
        os._exit(7)


if __name__ == "__main__":
    child.Service = Service  # type: ignore[misc]
    child.main()
