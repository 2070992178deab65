"""Every name in Redis, in one place; `common.lua` derives its own by the same rule.

{p}                      list   intake: `maskq.segment` messages of raw Celery callers
{p}.{model}.{priority}   list   messages 'look at job X', Celery's own layout
{p}:job:{id}             hash   the record
{p}:queue:{queue}        hash   sequence, passed, mark, marked_ms: finds lost messages
{p}:sent:{queue}         zset   queued jobs with a message, by sequence of sending
{p}:waiting:{queue}      zset   queued jobs that back off, by the time they may run
{p}:leases               zset   running jobs, by when their lease ends
{p}:deadlines            zset   jobs not ended, by when they expire or time out
{p}:created, {p}:ended   zset   all records; those ended
{p}:answers              zset   ended jobs whose Celery caller is not answered yet
{p}:answer-sequence      number of answers sent: their messages differ by it
{p}:batch:{id}[:ended]   hash, list   counts; ids in the order in which they ended
{p}:idempotency:{key}    hash   id and fingerprint of the request
{p}:models               hash   served name → what it is; persistent, so scale-to-zero keeps it
{p}:queues               set    queues that ever had a job
{p}:sweeper              hash   when the last sweep was, and of which Redis run
{p}:events               stream CloudEvents
{p}:wake:{id}            pub/sub channel: wakes who waits for a job or a batch
"""

from __future__ import annotations

from typing import Final

from maskq.contract import Priority

TASK_RUN: Final = "maskq.run"
TASK_SEGMENT: Final = "maskq.segment"


def intake(prefix: str) -> str:
    return prefix


def queue(prefix: str, model: str, priority: Priority) -> str:
    return f"{prefix}.{model}.{priority.value}"


def queues(prefix: str, model: str) -> list[str]:
    """The queues of one model, the most urgent first."""
    return [queue(prefix, model, priority) for priority in Priority]


def models(prefix: str) -> str:
    return f"{prefix}:models"


def answers(prefix: str) -> str:
    return f"{prefix}:answers"


def events(prefix: str) -> str:
    return f"{prefix}:events"


def record(prefix: str, job_id: str) -> str:
    return f"{prefix}:job:{job_id}"


def idempotency(prefix: str, key: str) -> str:
    return f"{prefix}:idempotency:{key}"


def wake(prefix: str, subject: str) -> str:
    return f"{prefix}:wake:{subject}"
