"""What becomes of the jobs of a fake deployment: how long they take, and which of them fail."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskq.contract import FailureCode, JobFailure
from maskq.errors import MaskqError, StoreUnavailable

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What becomes of one job. `error`: it fails so. `mask`: its mask; default: one drawn for it."""

    takes_s: float = 0.0
    error: JobFailure | None = None
    mask: PIL.Image.Image | None = None


class Plans:
    """Set by a test, read at each submission. Settings are made before the call that they are for."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        """Seconds from the start of each job to its end."""
        self.mask: PIL.Image.Image | None = None
        """The mask of every job: mode L or P, pixel = class id. None: drawn from the image's digest."""
        self._failures: deque[JobFailure] = deque()
        self._refusals: deque[MaskqError] = deque()
        self._is_away = False

    def fail_next(
        self, code: FailureCode | str = FailureCode.INTERNAL, message: str = "", *, times: int = 1
    ) -> None:
        """The next `times` jobs end as failed with this code."""
        failure = JobFailure(code=FailureCode(code), message=message or f"a test asked for {code}")
        self._failures.extend([failure] * times)

    def refuse_next(self, error: MaskqError, *, times: int = 1) -> None:
        """The next `times` submissions raise this error, such as QueueFull."""
        self._refusals.extend([error] * times)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Inside the block every operation raises StoreUnavailable. Waits tolerate it for a minute."""
        self._is_away = True
        try:
            yield
        finally:
            self._is_away = False

    def check_available(self) -> None:
        """Raises StoreUnavailable during an outage."""
        if self._is_away:
            raise StoreUnavailable(
                "the fake deployment is unavailable, because a test asked for it"
            )

    def check_accepts(self) -> None:
        """Raises the error that the next submission was to get."""
        if self._refusals:
            raise self._refusals.popleft()

    def next_job(self) -> JobPlan:
        """The plan of a new job. A planned failure is used up."""
        error = self._failures.popleft() if self._failures else None
        return JobPlan(self.takes_s, error, self.mask)
