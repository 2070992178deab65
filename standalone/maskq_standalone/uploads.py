"""Uploads start jobs: a process reads the embedded store's notifications from a queue.

The same happens on AWS: S3 sends a bucket's notifications to SQS, and `maskq trigger sqs` reads it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from maskq.contract.locations import S3Uri
from maskq_standalone.children.child import ChildError

COMMAND = (sys.executable, "-m", "maskq_gateway.sqs")


def watched(rules: Path, own_output: S3Uri) -> frozenset[str]:
    """The buckets that the rules watch. Raises ChildError with the first mistake in the file."""
    from maskq.errors import InvalidRequest
    from maskq_gateway.rules.rule import Rules

    try:
        return frozenset(rule.bucket for rule in Rules.load(rules, own_output=own_output).each)
    except InvalidRequest as error:
        raise ChildError(str(error)) from None


def settings(rules: Path, queue_url: str, endpoint_url: str) -> dict[str, str]:
    """What the process that reads the queue needs besides the settings of every process."""
    return {
        "MASKQ_TRIGGER_RULES": str(rules.absolute()),
        "MASKQ_TRIGGER_QUEUE_URL": queue_url,
        "MASKQ_SQS_ENDPOINT_URL": endpoint_url,
    }
