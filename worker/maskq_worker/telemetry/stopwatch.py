"""Measures the stages of an attempt, for the record, the metrics and the trace."""

from __future__ import annotations

import time
from types import TracebackType


class StageListener:
    """Hears of each stage that ended. This one does nothing."""

    def stage_ended(
        self, stage: str, began_ns: int, ended_ns: int, error: BaseException | None
    ) -> None:
        """Times are nanoseconds since the epoch. error: what ended it, if something was raised."""

    def forward_started(self, batch: int, images: int) -> None:
        """A batch starts with the job's image. batch: its number; images: in it."""

    def forward_ended(self) -> None:
        """The batch has ended."""


class Stopwatch:
    """Measures stages that follow one another; together they are the whole job.

    As a context manager it ends the last stage, also if something is raised.
    """

    def __init__(self, listener: StageListener | None = None) -> None:
        self.listener = listener or StageListener()
        self.milliseconds: dict[str, float] = {}
        self._stage: str | None = None
        self._began = time.perf_counter_ns()
        self._epoch_ns = time.time_ns() - self._began

    def begin(self, stage: str) -> None:
        """Begin a stage, and end the one before."""
        self.end()
        self._stage = stage

    def end(self, error: BaseException | None = None) -> None:
        """End the stage, if there is one. error: what was raised in it."""
        stage, began, now = self._stage, self._began, time.perf_counter_ns()
        self._stage, self._began = None, now
        if stage is not None:
            self.milliseconds[stage] = round((now - began) / 1e6, 2)
            self.listener.stage_ended(stage, began + self._epoch_ns, now + self._epoch_ns, error)

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.end(error)
