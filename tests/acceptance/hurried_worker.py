"""A worker with a drain of two seconds."""

from __future__ import annotations

import sys

from maskq_worker.__main__ import main
from maskq_worker.broker import bootstep

DRAIN_S = 2.0

if __name__ == "__main__":
    bootstep._DRAIN_S = DRAIN_S
    sys.exit(main())
