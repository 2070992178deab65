"""Pauses between tries: the strategies, and the numbers of each part of maskq that tries again."""

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
    """A list of pauses. After the last pause and its try, the caller gives up."""

    pauses_s: tuple[float, ...]
    jitter: Jitter = NO_JITTER

    def pause_s(self, failures: int) -> float | None:
        """Seconds to wait after so many failures (at least 1); None: give up."""
        if failures > len(self.pauses_s):
            return None
        return self.jitter.applied_to(self.pauses_s[failures - 1])


# Jitter, so that jobs that failed together are not tried again together.
JOB_RETRY: Final = ExponentialBackoff(first_s=1.0, longest_s=60.0, jitter=Jitter(0.5, 1.0))
# How long the circuit of a store stays open after a failure.
STORE_CIRCUIT: Final = ExponentialBackoff(first_s=1.0, longest_s=60.0, jitter=Jitter(0.8, 1.0))
# An object that another request creates or deletes at the moment.
S3_CONFLICT: Final = ExponentialBackoff(first_s=0.1, longest_s=0.8)
# Submissions to a full queue.
QUEUE_FULL: Final = ExponentialBackoff(first_s=0.1, longest_s=2.0)
# Added to the pauses of MASKQ_WEBHOOK_RETRIES_S.
WEBHOOK_JITTER: Final = Jitter(1.0, 1.2)
# Added to the time that a store or a host asks for.
LATER_JITTER: Final = Jitter(1.0, 1.5)
# Processes that ended: of `maskq worker`, and the workers and servers of `maskq up`.
WORKER_RESTART: Final = ExponentialBackoff(first_s=0.5, longest_s=30.0)
STACK_WORKER_RESTART: Final = ExponentialBackoff(first_s=1.0, longest_s=30.0)
SERVER_RESTART: Final = ExponentialBackoff(first_s=1.0, longest_s=30.0, immediate=1)
# Notifications, while SQS or Redis is away.
SQS_READ: Final = ExponentialBackoff(first_s=1.0, longest_s=30.0)
