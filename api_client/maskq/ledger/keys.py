"""Every name in Redis. `common.lua` and the scripts build the same names again: change both.

{p}                      list   intake: `maskq.segment` messages of raw Celery callers
{p}{sep}{n}              lists  the same with a priority n of 1 to 9; sep: kombu's default, or ':'
{p}:refused              list   messages that were put aside, JSON with the reason, the last 100
{p}.{model}              list   tickets 'take the next job of this model', Celery's own layout
{p}:job:{id}             hash   the record
{p}:alias:{name}         the id of the job that was submitted under this name (a Celery task's id)
{p}:ready:{model}:{priority}:{tenant}  zset  queued jobs that may run, by when they were submitted
{p}:turns:{model}:{priority}           zset  tenants that have such jobs, by when they were last served
{p}:queue:{model}        hash   counts of queued jobs, whose turn it is; tickets sent and missing
{p}:waiting              zset   queued jobs that back off, by the time they may run
{p}:claim:{token}        the job that a claim got, for a minute: it may be sent twice
{p}:leases               zset   running jobs, by when their lease ends
{p}:deadlines            zset   jobs not ended, by when they expire or time out
{p}:created, {p}:ended   zset   all records; those ended
{p}:outputs              zset   ended jobs whose objects go, by when (MASKQ_OUTPUT_RETENTION_S)
{p}:orphans              zset   jobs of which an attempt was cut off, by when its objects are looked for
{p}:delivery:{event}[:log]  hash, list  a webhook that is owed, and what its attempts came to
{p}:deliveries[:due]     zset   all of them by age; those to be tried, by when
{p}:answers              zset   ended jobs whose Celery caller is not answered yet
{p}:answer-sequence      number of answers sent: their messages differ by it
{p}:batch:{id}[:ended]   hash, list   counts; ids in the order in which they ended
{p}:idempotency:{key}    hash   id and fingerprint of the request
{p}:trigger:{sha256}     the highest sequencer of an object that the gateway was told of
{p}:models               hash   served name → what it is; persistent, so scale-to-zero keeps it
{p}:workers:{model}      zset   processes that serve it (JSON), by when they count as gone
{p}:api-key:{id}         hash   an API key: SHA-256 of its text, what it allows
{p}:api-key:{id}:{minute}       requests with it in that minute
{p}:api-keys             zset   ids of all API keys, by when they were made
{p}:default-model        the model of requests that name none (`maskq models default`)
{p}:durable              written by submissions that wait for the disk
{p}:sweeper              hash   when the last sweep was
{p}:events               stream CloudEvents
{p}:wake:{id}            pub/sub channel: wakes who waits for a job or a batch
"""

from __future__ import annotations

from typing import Final

TASK_RUN: Final = "maskq.run"
TASK_SEGMENT: Final = "maskq.segment"


def intake(prefix: str) -> str:
    return prefix


def queue(prefix: str, model: str) -> str:
    return f"{prefix}.{model}"


def models(prefix: str) -> str:
    return f"{prefix}:models"


def workers(prefix: str, model: str) -> str:
    return f"{prefix}:workers:{model}"


def durable(prefix: str) -> str:
    return f"{prefix}:durable"


def answers(prefix: str) -> str:
    return f"{prefix}:answers"


def outputs(prefix: str) -> str:
    return f"{prefix}:outputs"


def orphans(prefix: str) -> str:
    return f"{prefix}:orphans"


def events(prefix: str) -> str:
    return f"{prefix}:events"


def record(prefix: str, job_id: str) -> str:
    return f"{prefix}:job:{job_id}"


def idempotency(prefix: str, key: str) -> str:
    return f"{prefix}:idempotency:{key}"


def wake(prefix: str, subject: str) -> str:
    return f"{prefix}:wake:{subject}"
