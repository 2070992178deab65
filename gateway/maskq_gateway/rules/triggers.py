"""Starts the jobs of a created object: one for each rule and state, in any order of events."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, cast

from maskq import Client
from maskq.contract.options import OPTIONS, Options
from maskq.contract.storage_layout import is_output
from maskq.errors import IdempotencyConflict, InvalidRequest, MaskqError, UnknownModel
from maskq_gateway.rules.inspection import Inspection
from maskq_gateway.rules.rule import Rule, Rules
from maskq_gateway.sources import sequence
from maskq_gateway.sources.notifications import ObjectCreated

logger = logging.getLogger(__name__)

# Never change it: idempotency keys depend on it, and repeated events would start second jobs.
_NAMESPACE: Final = uuid.UUID("5f0c1c5e-6d0b-4a51-9a37-6f1d3c8e2b74")
_OURS: Final = "an output of maskq"
_NO_RULE: Final = "no rule applies to it"
_FOR_GOOD = (
    UnknownModel,
    InvalidRequest,
    IdempotencyConflict,
)  # a retry would fail in the same way


@dataclass(frozen=True, slots=True)
class Started:
    """The job of a rule and an object, started now or by an earlier delivery."""

    rule: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """No job was needed, and why."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The job was refused; a retry would be refused as well."""

    rule: str
    bucket: str
    key: str
    error: MaskqError

    def __str__(self) -> str:
        # Quoted and cut: uploaders choose the key, and this text goes into a log.
        return f"rule {self.rule!r}, {f's3://{self.bucket}/{self.key}'!r:.300}: {self.error}"


class Triggers:
    """Submits the jobs of the rules. Thread-safe."""

    def __init__(self, client: Client, rules: Rules) -> None:
        self._client = client
        self._rules = rules
        self._inspection = Inspection(client.session.objects)

    def start(self, events: Iterable[ObjectCreated]) -> list[Started | Skipped | Refused]:
        """The outcome for each event and rule. A refused job does not stop the others.

        Raises QueueFull and StoreUnavailable: the sender must then repeat all events. That starts
        no job twice.
        """
        return [outcome for event in events for outcome in self._each(event)]

    def _each(self, event: ObjectCreated) -> list[Started | Skipped | Refused]:
        if is_output(event.key):
            return [Skipped(event.key, _OURS)]
        by_type = self._rules.depend_on_type(event.bucket, event.key)
        if not by_type and not self._rules.taking(event.bucket, event.key):
            return [Skipped(event.key, _NO_RULE)]
        found = self._inspection.describe(event, required=by_type)
        if found.job_id:
            return [Skipped(event.key, f"{_OURS}: job {found.job_id!r:.50} wrote it")]
        rules = self._rules.taking(event.bucket, event.key, found.content_type)
        if not rules:
            return [Skipped(event.key, _NO_RULE)]
        return [self._one(event, rule) for rule in rules]

    def _one(self, event: ObjectCreated, rule: Rule) -> Started | Skipped | Refused:
        if self._is_stale(event, rule):
            return Skipped(event.key, "stale: a later state of the object was notified before")
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
        """Whether the object was overwritten. A version stays, whatever follows it."""
        if event.version_id or not event.sequencer:
            return False
        call = sequence.advance(
            subject=(rule.name, event.bucket, event.key),
            sequencer=event.sequencer,
            keep_s=self._client.settings.retention_s,
        )
        return not self._client.session.run(call)


def idempotency_key(event: ObjectCreated, rule: Rule) -> str:
    """The same for every delivery of one event by any transport, and another for the next state.

    It depends on the options of the rule: after a change of the rule, a repeated event starts a job
    with the new options, and is not a conflict.
    """
    # Without defaults: an option of a later version must not change the keys of existing rules.
    matching = {"bucket", "prefix", "suffixes", "content_types"}
    asked = rule.model_dump(mode="json", exclude=matching, exclude_defaults=True)
    said = json.dumps([event.bucket, event.key, event.state, asked], sort_keys=True)
    # Hashed with SHA-256 first: UUIDv5 uses SHA-1, and uploaders choose the key.
    return str(uuid.uuid5(_NAMESPACE, hashlib.sha256(said.encode()).hexdigest()))


def _options(event: ObjectCreated, rule: Rule) -> Options:
    fields = rule.options()
    chosen = {one.keyword: fields[one.name] for one in OPTIONS if one.name in fields}
    if event.version_id:
        chosen["image_version_id"] = event.version_id
    elif event.etag:
        chosen["image_etag"] = event.etag
    return cast(Options, chosen)
