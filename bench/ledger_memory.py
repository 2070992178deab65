"""`python -m bench.ledger_memory`: bytes of Redis that a queued and an ended job take.

Without events: the stream has a length of its own (at most 100,000, whatever the jobs).
"""

from __future__ import annotations

import argparse
import secrets
import tempfile
import time
from pathlib import Path

from maskq.contract import JobResult, SegmentRequest
from maskq.contract.ids import new_id, new_token
from maskq.ledger import Ledger, calls
from maskq_standalone.servers.redis import RedisServer, find

PREFIX = "maskq"
MODEL = "Intel/dpt-large-ade"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=5000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(
            Path(directory), password=secrets.token_urlsafe(), binary=find(pinned=True)
        )
        server.start()
        ledger = Ledger(server.url, PREFIX)
        try:
            measure(ledger, chosen.jobs)
        finally:
            ledger.close()
            server.stop()


def measure(ledger: Ledger, count: int) -> None:
    ledger.run(calls.register_model(MODEL, {}))
    empty = used(ledger)
    ids = [new_id() for _ in range(count)]
    ledger.run_many([submission(job_id) for job_id in ids])
    queued = used(ledger) - empty
    for _ in ids:
        token = new_token()
        record = ledger.run(calls.claim(MODEL, token, owner="host:1", lease_s=60)).record
        assert record is not None
        ledger.run(calls.succeed(record.id, token, result(record.id)))
        ledger.redis.delete(f"{PREFIX}:claim:{token}")  # it goes by itself after a minute
    ledger.redis.delete(f"{PREFIX}.{MODEL}")  # tickets, which a worker would have taken
    ended = used(ledger) - empty
    print(f"{count} jobs of {MODEL}, a mask of 8 classes; server {version(ledger)}")
    print(f"queued  {queued / count:7.0f} bytes a job (aim 2048), ticket included")
    print(f"ended   {ended / count:7.0f} bytes a job (aim 1024)")


def submission(job_id: str) -> calls.Call[calls.Submitted]:
    request = SegmentRequest(
        image_uri=f"s3://photos/2026/{job_id}.jpg", metadata={"order": "12345"}
    )
    return calls.submit(job_id, request, calls.Limits(default_model=MODEL))


def result(job_id: str) -> JobResult:
    names = ("sky", "building", "tree", "road", "grass", "person", "car", "water")
    mask = f"s3://maskq/maskq/{job_id}/{new_token()}/mask.png"
    return JobResult.model_validate(
        {
            "width": 640,
            "height": 480,
            "model": MODEL,
            "model_revision": "0123456789abcdef0123456789abcdef01234567",
            "outputs": {"mask": mask},
            "labels": dict(enumerate(names)),
            "source_etag": '"0123456789abcdef0123456789abcdef"',
            "timings_ms": dict.fromkeys(
                ("fetch", "decode", "prepare", "model", "encode", "store"), 12.34
            ),
        }
    )


def used(ledger: Ledger) -> int:
    """Without the event stream, whose length has nothing to do with that of the queue."""
    ledger.redis.delete(f"{PREFIX}:events")
    while (memory := ledger.redis.info("memory"))["lazyfree_pending_objects"]:
        time.sleep(0.05)
    return int(memory["used_memory_dataset"])


def version(ledger: Ledger) -> str:
    about = ledger.redis.info("server")
    return (
        f"{about.get('server_name', 'redis')} {about.get('valkey_version', about['redis_version'])}"
    )


if __name__ == "__main__":
    main()
