"""How long a process may take to stop. Each limit is longer than the one inside it.

worker        drain_s: its jobs in progress may finish (MASKQ_DRAIN_S)
              then it gives back the rest and closes its connections
supervisor    kill_after_s: `maskq worker` and `maskq up` send SIGKILL
container     container_s: `stop_grace_period` of docker-compose.yml, TimeoutStopSec, …
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DRAIN_S: Final = 30.0  # default of MASKQ_DRAIN_S
# Of the processes without a model. Both end well within `kill_after_s`.
WEBHOOKS_DRAIN_S: Final = 8.0  # `docker stop` kills after 10
GATEWAY_DRAIN_S: Final = 20  # whole seconds: uvicorn's type

# After the drain: give back jobs and close connections, perhaps while Redis does not answer.
_CLOSING_S: Final = 45.0
_SUPERVISOR_S: Final = 15.0  # to kill the processes, and to end


@dataclass(frozen=True, slots=True)
class StopTimes:
    """The limits that follow from a worker's drain."""

    drain_s: float = DRAIN_S

    @property
    def kill_after_s(self) -> float:
        """Seconds between a worker's SIGTERM and its SIGKILL."""
        return self.drain_s + _CLOSING_S

    @property
    def container_s(self) -> float:
        """Seconds that whatever runs the supervisor must leave it."""
        return self.kill_after_s + _SUPERVISOR_S
