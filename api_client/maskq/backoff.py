"""Strategies of pauses between tries. Each user constructs one in its own module, with its own numbers.

- jobs that are tried again: maskq_worker/jobs/runner.py (`_BACKOFF`)
- requests to S3: maskq_worker/storage/circuit_breaker.py and object_store.py
- calls to hosts of callers: maskq_worker/bulkhead.py
- webhooks: maskq_worker/webhooks/deliverer.py, with the pauses of MASKQ_WEBHOOK_RETRIES_S
- processes that are restarted: maskq_worker/process/slots.py
- notifications, while SQS or Redis is away: maskq_gateway/sqs/process.py
- submissions to a full queue: maskq/client/sending.py
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Jitter:
    """A random factor between two bounds, so that many callers do not come back at the same moment."""

    lowest: float
    highest: float

    def applied_to(self, seconds: float) -> float:
        """The pause, multiplied by a factor drawn anew."""
        return seconds * random.uniform(self.lowest, self.highest)


NO_JITTER: Final = Jitter(1.0, 1.0)


@dataclass(frozen=True, slots=True)
class ExponentialBackoff:
    """A pause that doubles with each failure in a row, up to a limit."""

    first_s: float
    longest_s: float
    jitter: Jitter = NO_JITTER
    immediate: int = 0  # failures that are followed by no pause

    def pause_s(self, failures: int) -> float:
        """Seconds to wait before the next try, after so many failures in a row (at least 1)."""
        doublings = failures - 1 - self.immediate
        if doublings < 0:
            return 0.0
        # A float holds no power of two above 1023.
        pause_s = min(self.longest_s, self.first_s * 2.0 ** min(doublings, 1000))
        return self.jitter.applied_to(pause_s)


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """A list of pauses; after the last of them there is no further try."""

    pauses_s: tuple[float, ...]
    jitter: Jitter = NO_JITTER

    def pause_s(self, failures: int) -> float | None:
        """Seconds to wait after so many failures (at least 1); None: give up."""
        if failures > len(self.pauses_s):
            return None
        return self.jitter.applied_to(self.pauses_s[failures - 1])
