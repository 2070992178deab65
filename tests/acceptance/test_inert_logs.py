"""The logs of real processes, while keys, messages and answers are hostile: a harmless line each."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import redis
from envelopes import encoded, envelope
from support.hostile import SECRET, TEXT, URL, Receiver, harmless, serving
from support.waiting import until

from maskq import Client, JobFailed
from maskq_standalone.stack import Stack

RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ \S+: ")
PRESIGNED = f"https://127.0.0.1/a.png?X-Amz-Signature={SECRET}"


def log_with(path: Path, *words: str) -> str:
    """The whole log, once it has these words."""

    def text() -> str:
        return path.read_text(encoding="utf-8")

    until(lambda: all(word in text() for word in words), otherwise=text)
    return text()


def test_the_logs_of_workers_and_webhooks_are_harmless() -> None:
    with (
        serving(Receiver) as receiver,
        Stack(workers=1, pinned=True, webhooks=True, env={
            "MASKQ_LOG_LEVEL": "DEBUG", "MASKQ_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
        }) as stack,
        pytest.MonkeyPatch.context() as patch,
        redis.Redis.from_url(stack.redis.url) as raw,
    ):  # fmt: skip
        for name, value in stack.environment.items():
            patch.setenv(name, value)
        # When keys, presigned URLs and messages on the broker's lists are hostile
        with Client.from_env() as client:
            for image in (f"s3://maskq/{TEXT}.png", PRESIGNED):
                job = client.submit(image, webhook=receiver)
                with pytest.raises(JobFailed):
                    job.wait(timeout=60)
        raw.lpush("maskq", f"no JSON {TEXT} {URL}")
        raw.lpush("maskq", json.dumps(envelope([TEXT, URL, PRESIGNED])))
        raw.lpush("maskq", json.dumps(envelope() | {"body": encoded([[PRESIGNED], TEXT, URL])}))

        # Then nothing of it acts on whoever reads the logs
        logs = stack.directory / "logs"
        worker = log_with(
            logs / "worker-1.log", r"ERROR forged\u202e", "refused a message", "a Celery caller"
        )
        webhooks = log_with(logs / "webhooks.log", r"ERROR forged\u202e")
        for text in (worker, webhooks):
            harmless(text)
            assert encoded([[PRESIGNED], TEXT, URL])[:40] not in text
            for line in text.splitlines():
                assert RECORD.match(line) or line.startswith("    "), line
