"""What a former release left in Redis and S3 (tests/fixtures/releases), loaded for a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import redis
from tools.releases import FIXTURES
from tools.releases.state import load_bucket, load_redis, now_ms

RELEASES = sorted(path.name for path in FIXTURES.iterdir())
HOOK = "https://receiver.example/hook"


class FormerRelease:
    """`jobs`: what each job shows → its id; `about`: the whole of about.json."""

    def __init__(self, version: str) -> None:
        self._directory: Path = FIXTURES / version
        self.about = self._read("about.json")
        self.jobs: dict[str, str] = self.about["jobs"]
        self.written_ms: int = self.about["written_ms"]

    def record(self, shows: str) -> dict[str, str]:
        """The fields of a job's hash as they were written."""
        fields: dict[str, str] = self._read("redis.json")[f"maskq:job:{self.jobs[shows]}"]["value"]
        return fields

    def load(self, server: redis.Redis, store: Any = None, *, hook: str = HOOK) -> None:
        """Write it all, as if it were written now. hook: the URL of its webhooks."""
        keys = json.loads(self._text("redis.json").replace(HOOK, hook))
        by_ms = now_ms(server) - self.written_ms
        load_redis(server, keys, self.written_ms, by_ms)
        if store is not None:
            objects = self._read("bucket.json")
            load_bucket(store, self.about["bucket"], objects, self.written_ms, by_ms)

    def _read(self, name: str) -> Any:
        return json.loads(self._text(name))

    def _text(self, name: str) -> str:
        return (self._directory / name).read_text()
