"""A client of either transport, and by hand what a worker does."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.transports import TRANSPORTS, connected

from maskq import (
    Client,
    FailureCode,
    JobStatus,
)
from maskq.contract import JobFailure, JobResult
from maskq.contract.ids import new_token
from maskq.contract.locations import S3Uri
from maskq.ledger import calls

if TYPE_CHECKING:
    pass


MASKQ = Path(sys.executable).with_name("maskq")
MODEL = "demo"
BROKEN = JobFailure(code=FailureCode.INVALID_IMAGE, message="not an image")


class Service:
    """A client, and by hand what a worker does."""

    def __init__(self, client: Client, direct: Client) -> None:
        self.client = client
        self.direct = direct
        self.prefix = direct.settings.key_prefix
        self.ledger = direct.session.ledger
        self.ledger.run(calls.register_model(MODEL, {}))

    def work(self, count: int = 10_000, fail: str = "no such name") -> list[str]:
        """End so many jobs that are queued now; those whose image's name has `fail` in it fail."""
        done = []
        while len(done) < count:
            token = new_token()
            call = calls.claim(MODEL, token, owner="x:1", lease_s=60)
            record = self.ledger.run(call).record
            if record is None:
                break
            if fail in record.request.image_uri:
                self.ledger.run(calls.fail(record.id, token, JobStatus.FAILED, BROKEN))
            else:
                result = JobResult(width=1, height=1, model=MODEL, outputs={"mask": "s3://o/m.png"})
                self.ledger.run(calls.succeed(record.id, token, result))
            done.append(record.request.image_uri)
        return done

    def images(self) -> Counter[str]:
        """Image → how many jobs it has."""
        names = list(self.ledger.redis.scan_iter(f"{self.prefix}:job:*", count=1000))
        with self.ledger.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hget(name, "request")
            return Counter(json.loads(request)["image_uri"] for request in pipe.execute())


@pytest.fixture(params=TRANSPORTS)
def service(
    environment: dict[str, str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    with connected(request.param, monkeypatch) as (client, direct):
        yield Service(client, direct)


def places(count: int, folder: str = "photos") -> list[str]:
    return [f"s3://{folder}/{number:05}.jpg" for number in range(count)]


def objects_of(service: Service) -> set[str]:
    from maskq import s3

    place = S3Uri(service.direct.settings.s3_bucket, service.direct.settings.output_prefix)
    return {
        found.key
        for found in s3.list_under(s3.connect(service.direct.settings.s3_endpoint_url), place)
    }
