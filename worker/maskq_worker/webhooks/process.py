"""The process that posts webhooks: its start, its loop, its end."""

from __future__ import annotations

import logging
import sys
from typing import Final

from maskq.errors import MaskqError
from maskq.inert import log_to_stderr, print_error
from maskq.ledger import Ledger
from maskq.ledger.connections.requirements import Role, await_met
from maskq.process import EX_CONFIG
from maskq.process.health import HealthFile
from maskq.process.stop_signal import StopSignal
from maskq.process.stop_times import WEBHOOKS_DRAIN_S
from maskq.telemetry.server import serving_metrics
from maskq.telemetry.trace_export import exporting
from maskq_worker.jobs.leases import Sweeper
from maskq_worker.webhooks.deliverer import Deliverer
from maskq_worker.webhooks.settings import WebhookSettings

logger = logging.getLogger(__name__)

_IDLE_S: Final = 0.5


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code."""
    stop = StopSignal()
    with stop.listening():
        try:
            settings = WebhookSettings.load()
            ledger = Ledger.of(settings)
            deliverer = Deliverer(ledger, settings)
            log_to_stderr(settings.log_level, settings.log_format)
            _await_redis(ledger, settings, stop)
        except MaskqError as error:
            print_error(f"maskq worker: {error}")
            return EX_CONFIG
        with exporting("maskq-webhooks"), serving_metrics(settings):
            run(deliverer, ledger, settings, stop)
    return 0


def run(deliverer: Deliverer, ledger: Ledger, settings: WebhookSettings, stop: StopSignal) -> None:
    """Deliver until somebody asks to stop.

    It sweeps as well: jobs must expire also while no worker is up.
    """
    health = HealthFile(settings.health_file)
    sweeper = Sweeper(ledger, settings.lease_s, settings.event_retention_s)
    sweeper.start()
    while not stop.requested():
        started = _deliver(deliverer)
        health.touch()
        if not started:
            stop.wait(_IDLE_S)
    deliverer.close(drain_s=WEBHOOKS_DRAIN_S)
    sweeper.stop()
    ledger.close()
    health.remove()


def _deliver(deliverer: Deliverer) -> int:
    try:
        return deliverer.deliver_due()
    except MaskqError as error:
        logger.warning("%s; trying again", error)
        return 0


def _await_redis(ledger: Ledger, settings: WebhookSettings, stop: StopSignal) -> None:
    """Wait for Redis. Raises MaskqError if it lacks what the role needs; exits at a stop."""

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            sys.exit(0)

    await_met(ledger, Role.WEBHOOKS, "*", pause)
