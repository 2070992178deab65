"""The settings of processes that stay up: workers, webhooks, the gateway, `maskq metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import Field

from maskq.settings import PREFIX, Settings

PORT: Final = f"{PREFIX}METRICS_PORT"


class TelemetrySettings(Settings):
    """What a process shows of itself."""

    metrics_port: int | None = Field(default=None, ge=1, le=65_535)
    """Port of `GET /metrics`, without a key. Default: none. Of several worker processes on a host, the
    first one takes it and the others the ports after it.
    """
    metrics_host: str = "127.0.0.1"
    """Address at which that port listens. `0.0.0.0`: all, for a Prometheus on another host."""
    log_format: Literal["text", "json"] = "text"
    """Form of a log line. `json`: one object a line, with a job's fields by name."""


def port_of(number: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The variable of the process of this number, so that each on a host has a port of its own.

    Empty if no port is set. A value that is not a number is left for the process to refuse.
    """
    port = environment.get(PORT, "")
    return {PORT: str(int(port) + number)} if port.isdecimal() else {}
