"""The settings of processes that stay up: workers, webhooks, the gateway, `maskq metrics`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from maskq.settings import Settings


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
