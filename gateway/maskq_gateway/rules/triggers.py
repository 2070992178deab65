"""From a created object to its jobs: exactly one a rule and state, in whatever order events come."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, cast

from maskq import Client
from maskq.client.requests import Options
from maskq.contract.storage_layout import is_output
from maskq.errors import IdempotencyConflict, InvalidRequest, MaskqError, UnknownModel
from maskq_gateway.rules.rule import Rule, Rules
from maskq_gateway.sources import sequence
from maskq_gateway.sources.notifications import ObjectCreated

logger = logging.getLogger(__name__)

# Ours alone; another one would start every job again that a sender repeats.
_NAMESPACE: Final = uuid.UUID("5f0c1c5e-6d0b-4a51-9a37-6f1d3c8e2b74")
_OPTION_OF = {"queue_ttl_s": "queue_ttl", "run_timeout_s": "run_timeout"}
_FOR_GOOD = (UnknownModel, InvalidRequest, IdempotencyConflict)  # the same again when tried again


@dataclass(frozen=True, slots=True)
class Started:
    """The job of a rule and an object; it may have been started by an earlier delivery."""

    rule: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Nothing was to be done, and why."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The rule's job was not accepted and will not be until somebody changes something."""

    rule: str
    bucket: str
    key: str
    error: MaskqError

    def __str__(self) -> str:
        # Quoted and cut: whoever uploads chooses the key, and this goes into a log.
        return f"rule {self.rule!r}, {f's3://{self.bucket}/{self.key}'!r:.300}: {self.error}"


class Triggers:
    """Submits what the rules say. Thread-safe, as its client is."""

    def __init__(self, client: Client, rules: Rules) -> None:
        self._client = client
        self._rules = rules

    def start(self, events: Iterable[ObjectCreated]) -> list[Started | Skipped | Refused]:
        """What became of each event and rule. One that is refused does not hold up the others.

        Raises QueueFull and StoreUnavailable: let the sender try all of it again, which repeats none.
        """
        return [outcome for event in events for outcome in self._each(event)]

    def _each(self, event: ObjectCreated) -> list[Started | Skipped | Refused]:
        rules = self._rules.taking(event.bucket, event.key)
        if not rules:
            ours = is_output(event.key)
            return [Skipped(event.key, "an output of maskq" if ours else "no rule takes it")]
        return [self._one(event, rule) for rule in rules]

    def _one(self, event: ObjectCreated, rule: Rule) -> Started | Skipped | Refused:
        if self._is_stale(event, rule):
            return Skipped(event.key, "stale: a later state of it was notified before")
        try:
            job = self._client.submit(
                f"s3://{event.bucket}/{event.key}",
                idempotency_key=idempotency_key(event, rule),
                **_options(event, rule),
            )
        except _FOR_GOOD as error:
            refused = Refused(rule.name, event.bucket, event.key, error)
            logger.error("%s", refused)
            return refused
        return Started(rule.name, job.id)

    def _is_stale(self, event: ObjectCreated, rule: Rule) -> bool:
        """A version is there whatever follows it; an object without versions was overwritten."""
        if event.version_id or not event.sequencer:
            return False
        call = sequence.advance(
            subject=(rule.name, event.bucket, event.key),
            sequencer=event.sequencer,
            keep_s=self._client.settings.retention_s,
        )
        return not self._client.session.run(call)


def idempotency_key(event: ObjectCreated, rule: Rule) -> str:
    """The same for every delivery of an event, whichever way it came; another for the next state.

    Everything that the rule asks for is part of it: with a rule changed, a repeated event starts the
    job as it is asked for now, and is no conflict.
    """
    # Without defaults: an option that a later version adds makes no second job of a repeated event.
    matching = {"bucket", "prefix", "suffixes"}
    asked = rule.model_dump(mode="json", exclude=matching, exclude_defaults=True)
    said = json.dumps([event.bucket, event.key, event.state, asked], sort_keys=True)
    # Hashed first: UUIDv5 is SHA-1, and who uploads chooses the key.
    return str(uuid.uuid5(_NAMESPACE, hashlib.sha256(said.encode()).hexdigest()))


def _options(event: ObjectCreated, rule: Rule) -> Options:
    chosen: dict[str, Any] = {_OPTION_OF.get(n, n): v for n, v in rule.options().items()}
    if event.version_id:
        chosen["image_version_id"] = event.version_id
    elif event.etag:
        chosen["image_etag"] = event.etag
    return cast(Options, chosen)
