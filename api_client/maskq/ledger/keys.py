"""Every name in Redis. Python and the Lua scripts (scripts.py) both take the names from here.

A pattern lacks the deployment's prefix: `keys.record("1").within("maskq")` is `maskq:job:1`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

TASK_RUN: Final = "maskq.run"
TASK_SEGMENT: Final = "maskq.segment"

_PART: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Key:
    """A name in Redis without its deployment's prefix."""

    suffix: str

    def within(self, prefix: str) -> str:
        """The name in the deployment with this prefix."""
        return prefix + self.suffix


class Pattern:
    """A kind of name: called with its parts in the order of `text`, it returns the Key."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.parts: tuple[str, ...] = tuple(_PART.findall(text))
        self._format = _PART.sub("{}", text)

    def __call__(self, *parts: str) -> Key:
        if len(parts) != len(self.parts):
            raise TypeError(f"{self.text!r} has the parts {self.parts}, not {parts}")
        return Key(self._format.format(*parts))


# --- lists of Celery messages -------------------------------------------------------------------------

# `maskq.segment` messages of raw Celery callers. kombu keeps priority n of 1 to 9 in a list of its own:
# the name, kombu's separator or ':', and n.
callers_queue: Final = Pattern("")
queue: Final = Pattern(
    ".{model}"
)  # tickets 'run the next job of this model', in Celery's own layout
refused: Final = Pattern(":refused")  # list: the last 100 messages refused, JSON with the reason

# --- jobs ---------------------------------------------------------------------------------------------

record: Final = Pattern(":job:{id}")  # hash
alias: Final = Pattern(
    ":alias:{name}"
)  # id of the job submitted under this name (a Celery task's id)
claim: Final = Pattern(":claim:{token}")  # id of the job that a claim got; kept for a minute
idempotency: Final = Pattern(":idempotency:{key}")  # hash: id and fingerprint of the request
created: Final = Pattern(":created")  # zset: all records, by when they were submitted
ended: Final = Pattern(":ended")  # zset: ended jobs, by when they ended
leases: Final = Pattern(":leases")  # zset: running jobs, by when their lease ends
deadlines: Final = Pattern(":deadlines")  # zset: jobs not ended, by when they expire or time out
waiting: Final = Pattern(":waiting")  # zset: queued jobs that back off, by when they may run

# zset: queued jobs that may run now, by when they were submitted
ready: Final = Pattern(":ready:{model}:{priority}:{tenant}")
# --- fair shares of a model (lua/shares.lua) ---
# zset: tenants of one weight that wait for their turns, by their starts in virtual time
shares: Final = Pattern(":shares:{model}:{weight}")
# zset: weights of such tenants, by the earliest start of each
share_weights: Final = Pattern(":share-weights:{model}")
# set: tenants with ready jobs that run as many jobs as they may
held_tenants: Final = Pattern(":held:{model}")
# hash: the shares of a tenant's priorities
tenant_levels: Final = Pattern(":levels:{tenant}:{model}")
# zset: as version 0.1 lists the tenants with ready jobs
former_turns: Final = Pattern(":turns:{model}:{priority}")
# hash of a model: counts of queued jobs, the state of the fair queue, tickets sent and missing
queue_state: Final = Pattern(":queue:{model}")
# hash of a model: completions of the last minutes while jobs waited, and the time that they took
pace: Final = Pattern(":pace:{model}")

batch: Final = Pattern(":batch:{id}")  # hash: counts
batch_ended: Final = Pattern(":batch:{id}:ended")  # list: ids in the order in which the jobs ended
answers: Final = Pattern(":answers")  # zset: ended jobs whose Celery caller has no answer yet
answer_sequence: Final = Pattern(
    ":answer-sequence"
)  # number of answers sent; makes each message unique

# --- objects in the store -----------------------------------------------------------------------------

outputs: Final = Pattern(":outputs")  # zset: ended jobs, by when their objects are removed
orphans: Final = Pattern(
    ":orphans"
)  # zset: jobs with a cut-off attempt, by when its objects are removed

error_files: Final = Pattern(
    ":error-files"
)  # zset: ended jobs whose error file is missing, by when it is written
uploads: Final = Pattern(
    ":uploads"
)  # zset: images uploaded by presigned URLs and not submitted yet, by when they are removed

# --- events and webhooks ------------------------------------------------------------------------------

events: Final = Pattern(":events")  # stream of CloudEvents
wake: Final = Pattern(":wake:{subject}")  # pub/sub channel: wakes who waits for a job or a batch
delivery: Final = Pattern(":delivery:{event}")  # hash: a webhook to deliver
delivery_log: Final = Pattern(":delivery:{event}:log")  # list: its attempts
deliveries: Final = Pattern(":deliveries")  # zset: all webhooks, by age
deliveries_due: Final = Pattern(":deliveries:due")  # zset: webhooks to deliver, by when
deliveries_dead: Final = Pattern(":deliveries:dead")  # zset: webhooks that failed, by when

# --- models -------------------------------------------------------------------------------------------

models: Final = Pattern(":models")  # hash: served name → about it; kept when no worker is left
workers: Final = Pattern(":workers:{model}")  # zset: its workers (JSON), by when they count as gone
heartbeats: Final = Pattern(
    ":heartbeats:{model}"
)  # hash: worker → when it last registered, and what it then said of itself (JSON)
# zset: revisions that its workers serve, as in their JSON, by when the last of them counts as gone
revisions: Final = Pattern(":revisions:{model}")
store_away: Final = Pattern(
    ":store-away:{model}"
)  # zset: its workers that claim nothing because their store is away, by until when that is known
default_model: Final = Pattern(":default-model")  # set by `maskq models default`

# --- tenants ------------------------------------------------------------------------------------------

tenants: Final = Pattern(":tenants")  # set: tenants that have settings
tenant: Final = Pattern(":tenant:{name}")  # hash: settings, and the state of its submit rate
tenant_running: Final = Pattern(":tenant:{name}:running")  # set: its running jobs, if it has a cap

# --- the deployment -----------------------------------------------------------------------------------

api_keys: Final = Pattern(":api-keys")  # zset: ids of all API keys, by when they were made
api_key: Final = Pattern(":api-key:{id}")  # hash: SHA-256 of its text, what it allows
api_key_minute: Final = Pattern(":api-key:{id}:{minute}")  # requests with it in that minute
trigger: Final = Pattern(":trigger:{subject}")  # highest sequencer of an object, by the gateway
durable: Final = Pattern(":durable")  # written by submissions that wait for the disk
sweeper: Final = Pattern(":sweeper")  # hash: when the last sweep was
sweep_turn: Final = Pattern(":sweep-turn")  # expires when the next sweep may begin
counters: Final = Pattern(":counters")  # hash: what has happened how often, for metrics


def patterns() -> Mapping[str, Pattern]:
    """Every pattern by its name in this module."""
    return {name: each for name, each in globals().items() if isinstance(each, Pattern)}
