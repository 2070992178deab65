"""The AsyncAPI document of events, webhooks and Celery messages, made from the contract's models.

    python -m maskq.contract.asyncapi > docs/asyncapi.json

It names no host: where Redis is and which key prefix it has depends on the deployment.
"""

from __future__ import annotations

import json
from typing import Final

from maskq.contract.asyncapi.celery_callers import MAX_TASK_ID, TASK, SegmentAnswer
from maskq.contract.asyncapi.channels import KEY_PREFIX, channels, operations
from maskq.contract.asyncapi.messages import messages
from maskq.contract.asyncapi.refs import Json
from maskq.contract.asyncapi.schemas import schemas

__all__ = ["CONTRACT_VERSION", "MAX_TASK_ID", "TASK", "SegmentAnswer", "document", "text"]

# The version of the wire format, not of the package. Raise the last number for a change of words, the
# middle one for what readers survive that ignore unknown fields (a new field, event type or failure
# code), the first one for what they do not (a field that is gone, renamed or has another meaning).
CONTRACT_VERSION: Final = "1.0.2"


def document() -> Json:
    """The document as plain JSON values; the same in every process."""
    return {
        "asyncapi": "3.0.0",
        "info": _info(),
        "defaultContentType": "application/json",
        "channels": channels(),
        "operations": operations(),
        "components": {
            "schemas": schemas(),
            "messages": messages(),
            "parameters": {"key_prefix": KEY_PREFIX},
        },
    }


def text() -> str:
    """The document as the file holds it."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def _info() -> Json:
    return {
        "title": "maskq",
        "version": CONTRACT_VERSION,
        "description": "A queue of image segmentation jobs. Every state that a job or batch enters is "
        "a CloudEvent: on a Redis stream, and posted to the webhook of the request. Events are "
        "delivered at least once, with a stable id. Readers ignore unknown fields and types.",
        "license": {"name": "Apache-2.0"},
    }
