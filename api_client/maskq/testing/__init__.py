"""Clients in memory, and records and results in one line, for the tests of programs that use maskq.

    from maskq.testing import FakeClient
    client = FakeClient()
    client.fake.fail_next("invalid_image")

With maskq installed pytest has the fixtures `maskq_fake` and `maskq_stack` (docs/testing.md).
"""

from maskq.testing.clients import FakeAsyncClient, FakeClient
from maskq.testing.deployment.stream import SECRET as WEBHOOK_SECRET
from maskq.testing.deployment.stream import Webhook
from maskq.testing.deployment.stream import signed as sign_webhook
from maskq.testing.records import (
    damaged_image_bytes,
    image_bytes,
    make_event,
    make_record,
    make_result,
)
from maskq.testing.service import FakeService

__all__ = [
    "WEBHOOK_SECRET",
    "FakeAsyncClient",
    "FakeClient",
    "FakeService",
    "Webhook",
    "damaged_image_bytes",
    "image_bytes",
    "make_event",
    "make_record",
    "make_result",
    "sign_webhook",
]
