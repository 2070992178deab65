"""The secret that signs webhooks."""

from __future__ import annotations

from collections.abc import Iterator

from maskq import webhooks
from maskq.cli.doctor.check import Check, Finding, Role, Target, ok, trouble, unknown, warning
from maskq.errors import InvalidRequest, MaskqError
from maskq_worker.webhooks.settings import WebhookSettings

_MAKE = "maskq webhooks secret, and set MASKQ_WEBHOOK_SECRET (docs/webhooks-and-events.md)"


class WebhooksCheck(Check):
    area = "webhooks"
    roles = frozenset({Role.WEBHOOKS, Role.WORKER})

    def run(self, target: Target) -> Iterator[Finding]:
        try:
            settings = WebhookSettings.load()
        except InvalidRequest:
            yield unknown("secret", "the settings are not valid")
            return
        secret = settings.webhook_secret.get_secret_value()
        if target.role is Role.WEBHOOKS or secret:
            yield _secret(secret)
        elif settings.webhook_url:
            yield warning("secret", "MASKQ_WEBHOOK_URL is set, and no secret is known here", _MAKE)


def _secret(secret: str) -> Finding:
    try:
        keys = webhooks.keys_of(secret)
    except MaskqError as error:
        return trouble("secret", str(error), _MAKE)
    return ok("secret", f"{len(keys)} secrets" if len(keys) > 1 else "valid")
