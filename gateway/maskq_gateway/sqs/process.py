"""Notifications out of an SQS queue: `maskq trigger sqs`, or `python -m maskq_gateway.sqs`.

A message is deleted when all its jobs are safe in the ledger. One that cannot be handled now comes back
after the queue's visibility timeout; one that never can goes where the queue's redrive policy says.
"""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import Any

from maskq import Client
from maskq.errors import InvalidRequest, MaskqError, QueueFull, StoreUnavailable
from maskq.inert import log_to_stderr, print_error
from maskq.ledger.connections.requirements import Role, refuse_unfit
from maskq.process import EX_CONFIG, starting
from maskq_gateway.heartbeat import Heartbeat
from maskq_gateway.rules.rule import Rules
from maskq_gateway.rules.triggers import Refused, Triggers
from maskq_gateway.settings import GatewaySettings
from maskq_gateway.sources import notifications
from maskq_gateway.sources.notifications import NotAnEvent
from maskq_gateway.sqs.queue import Queue, Unreachable, connect

logger = logging.getLogger(__name__)

_PAUSE_S = (
    1.0,
    30.0,
)  # first and longest, while Redis or the queue is away or the queue of jobs full


def run(settings: GatewaySettings, rules: Rules, stop: threading.Event) -> None:
    """Take messages until told to stop; those in hand are finished. Raises InvalidRequest when the
    queue refuses us or is not known, at the start."""
    if not settings.trigger_queue_url:
        raise InvalidRequest(
            "there is no queue to read: set MASKQ_TRIGGER_QUEUE_URL, or give --queue-url"
        )
    source = connect(settings.trigger_queue_url, settings.sqs_endpoint_url)
    with starting():  # a Redis or S3 URL that cannot be used
        connected = Client(settings)
    with connected as client, Heartbeat(settings.health_file) as beat:
        refuse_unfit(client.session.ledger, Role.GATEWAY)
        _read(source, Triggers(client, rules), beat, stop)


def _read(source: Queue, triggers: Triggers, beat: Heartbeat, stop: threading.Event) -> None:
    pause_s = _PAUSE_S[0]
    while not stop.is_set():
        if _round(source, triggers, beat):
            pause_s = _PAUSE_S[0]
            continue
        # Every receive counts towards the redrive policy: while nothing gets through, take little.
        stop.wait(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_S[1])


def _round(source: Queue, triggers: Triggers, beat: Heartbeat) -> bool:
    """Receive once and handle what came. False: something is away, or full; go slowly."""
    try:
        messages = source.receive()
        beat.alive()
        for message in messages:
            if _handle(message, triggers):
                source.delete(message)
            beat.alive()
    except (Unreachable, StoreUnavailable, QueueFull) as error:
        beat.still_alive()
        logger.warning("%s; trying again", error)
        return False
    return True


def _handle(message: dict[str, Any], triggers: Triggers) -> bool:
    """Whether the message is done with. Raises QueueFull and StoreUnavailable."""
    try:
        created = notifications.read(notifications.parse(message.get("Body", "")))
        outcomes = triggers.start(created)
    except NotAnEvent as error:
        logger.error("message %s stays in the queue: %s", message.get("MessageId"), error)
        return False
    except MaskqError:
        raise
    except Exception:  # one message must not end the reading of all others
        logger.exception("message %s met a fault of ours and stays", message.get("MessageId"))
        return False
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    if refused:  # each was logged with its reason
        logger.error("message %s stays in the queue", message.get("MessageId"))
    return not refused


def serve(settings: GatewaySettings, rules: Path | None = None) -> None:
    """`run` as a process of its own: logs on stderr, ends by SIGTERM or SIGINT. Raises MaskqError."""
    log_to_stderr(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run(settings, settings.rules(rules), stop)


def main() -> int:
    try:
        serve(GatewaySettings.load())
    except MaskqError as error:
        print_error(f"maskq trigger sqs: {error}")
        return EX_CONFIG
    return 0
