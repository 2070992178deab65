"""maskq metrics: export the deployment's series to Prometheus."""

from __future__ import annotations

from typing import Annotated

import typer

from maskq.extras import require
from maskq.inert import log_to_stderr, print_error, print_lines
from maskq.process import starting
from maskq.process.stop_signal import StopSignal

_CHECK_S = 1.0
_PORT = 9464  # that of OpenTelemetry's exporter for Prometheus


def register(parent: typer.Typer) -> None:
    parent.command()(metrics)


def metrics(
    once: Annotated[bool, typer.Option("--once", help="print the series and exit")] = False,
    host: Annotated[str | None, typer.Option(help="instead of MASKQ_METRICS_HOST")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help=f"instead of MASKQ_METRICS_PORT; default: {_PORT}"),
    ] = None,
) -> None:
    """Serve the deployment's metrics at GET /metrics, for a deployment without a gateway."""
    require("metrics", "maskq metrics")
    from maskq.ledger import Ledger
    from maskq.ledger.calls.metrics import deployment_metrics
    from maskq.ledger.connections.requirements import Role, refuse_unfit
    from maskq.telemetry.deployment import deployment_text
    from maskq.telemetry.server import MetricsServer
    from maskq.telemetry.settings import TelemetrySettings

    with starting():
        settings = TelemetrySettings.load()
        ledger = Ledger.of(settings)
    try:
        if once:
            print_lines(*deployment_text(ledger.run(deployment_metrics())).decode().splitlines())
            return
        stop = StopSignal()
        log_to_stderr("INFO", settings.log_format)
        refuse_unfit(ledger, Role.READER)
        chosen = host or settings.metrics_host, port or settings.metrics_port or _PORT
        server = MetricsServer(*chosen, lambda: deployment_text(ledger.run(deployment_metrics())))
        with stop.listening():
            server.start()
            print_error("metrics at http://{}:{}/metrics".format(*chosen))
            while not stop.requested():
                stop.wait(_CHECK_S)
            server.stop()
    finally:
        ledger.close()
