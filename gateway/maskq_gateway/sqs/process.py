"""Notifications out of an SQS queue: `maskq trigger sqs`, or `python -m maskq_gateway.sqs`.

A message is deleted once all its jobs are in the ledger. A message that cannot be handled now comes
back after the queue's visibility timeout; the queue's redrive policy decides what happens to one that
never can be handled.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from maskq import Client
from maskq.backoff import SQS_READ
from maskq.errors import (
    InvalidRequest,
    MaskqError,
    QueueFull,
    StoreUnavailable,
    SubmitRateExceeded,
)
from maskq.inert import log_to_stderr, print_error
from maskq.ledger.connections.requirements import Role, refuse_unfit
from maskq.process import EX_CONFIG, starting
from maskq.process.health import HealthFile, Heartbeat
from maskq.process.stop_signal import StopSignal
from maskq.telemetry.server import serving_metrics
from maskq.telemetry.trace_export import exporting
from maskq_gateway.rules.rule import Rules
from maskq_gateway.rules.triggers import Refused, Triggers
from maskq_gateway.settings import GatewaySettings
from maskq_gateway.sources import notifications
from maskq_gateway.sources.notifications import NotAnEvent
from maskq_gateway.sqs.queue import Queue, Unreachable, connect

logger = logging.getLogger(__name__)

# While Redis or the queue does not answer, or the queue of jobs is full.


def run(settings: GatewaySettings, rules: Rules, stop: StopSignal) -> None:
    """Take messages until somebody asks to stop; messages in progress are finished.

    Raises InvalidRequest if the queue is unknown or refuses the credentials at the start.
    """
    if not settings.trigger_queue_url:
        raise InvalidRequest(
            "there is no queue to read: set MASKQ_TRIGGER_QUEUE_URL, or give --queue-url"
        )
    source = connect(settings.trigger_queue_url, settings.sqs_endpoint_url)
    with starting():  # a Redis or S3 URL that cannot be used
        connected = Client(settings)
    with connected as client, Heartbeat(HealthFile(settings.health_file)) as heartbeat:
        refuse_unfit(client.session.ledger, Role.GATEWAY)
        _read(source, Triggers(client, rules), heartbeat, stop)


def _read(source: Queue, triggers: Triggers, heartbeat: Heartbeat, stop: StopSignal) -> None:
    failures = 0
    while not stop.requested():
        if _handle_some(source, triggers, heartbeat):
            failures = 0
            continue
        # Every receive counts towards the redrive policy, so receive seldom while no job can start.
        failures += 1
        stop.wait(SQS_READ.pause_s(failures))


def _handle_some(source: Queue, triggers: Triggers, heartbeat: Heartbeat) -> bool:
    """Receive once and handle the messages. False: Redis or the queue is away, or no job fits."""
    try:
        messages = source.receive()
        heartbeat.alive()
        for message in messages:
            if _handle(message, triggers):
                source.delete(message)
            heartbeat.alive()
    except (Unreachable, StoreUnavailable, QueueFull) as error:
        heartbeat.still_alive()
        logger.warning("%s; trying again", error)
        return False
    return True


def _handle(message: dict[str, Any], triggers: Triggers) -> bool:
    """Whether the message can be deleted. Raises QueueFull and StoreUnavailable."""
    try:
        created = notifications.read(notifications.parse(message.get("Body", "")))
        outcomes = triggers.start(created)
    except NotAnEvent as error:
        logger.error("message %s stays in the queue: %s", message.get("MessageId"), error)
        return False
    except SubmitRateExceeded as error:  # it concerns one tenant: the other messages go on
        logger.warning("message %s stays in the queue: %s", message.get("MessageId"), error)
        return False
    except MaskqError:
        raise
    except Exception:  # one message must not stop the others
        logger.exception("message %s met a fault of ours and stays", message.get("MessageId"))
        return False
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    if refused:  # each was logged with its reason
        logger.error("message %s stays in the queue", message.get("MessageId"))
    return not refused


def serve(settings: GatewaySettings, rules: Path | None = None) -> None:
    """`run` as a process of its own: logs to stderr, stops at SIGTERM or SIGINT. Raises MaskqError."""
    log_to_stderr(settings.log_level, settings.log_format)
    stop = StopSignal()
    with stop.listening(), exporting("maskq-gateway"), serving_metrics(settings):
        run(settings, settings.rules(rules), stop)


def main() -> int:
    try:
        serve(GatewaySettings.load())
    except MaskqError as error:
        print_error(f"maskq trigger sqs: {error}")
        return EX_CONFIG
    return 0
