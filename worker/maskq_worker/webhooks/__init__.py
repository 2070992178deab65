"""`maskq worker --role webhooks`: posts the events that the ledger lists as due. It needs no model.

It takes a due delivery, posts it, and writes the outcome to the ledger. If the process dies in between,
the delivery becomes due again, so a receiver may get an event twice, with the same webhook-id.
"""

from maskq_worker.webhooks.deliverer import Deliverer, retry_after_s
from maskq_worker.webhooks.settings import WebhookSettings

__all__ = ["Deliverer", "WebhookSettings", "retry_after_s"]
