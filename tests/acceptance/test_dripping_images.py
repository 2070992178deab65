"""Image URLs that never end hold up their own jobs only, on a real worker with a CPU's few threads."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import Any

import pytest
from acceptance.conftest import LEASE_S
from PIL import Image
from support.dripping import Dripping
from support.waiting import until

from maskq import Client, JobStatus
from maskq_standalone.stack import Stack

BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 60000000\r\n\r\n"
HEADER = b"HTTP/1.1 200 OK\r\nX-Slow: "
COUNT = 12
DRAIN_S = 2.0


@pytest.fixture
def stack_options() -> dict[str, Any]:
    allowed = [f"127.0.{network}.{n + 1}" for network in (1, 2) for n in range(COUNT)]
    env = {
        "MASKQ_LEASE_S": str(LEASE_S),
        "MASKQ_DRAIN_S": str(DRAIN_S),
        "MASKQ_PRESIGNED_ALLOWED_HOSTS": ",".join(allowed),
    }
    return {"workers": 1, "pinned": True, "env": env}


def test_dripping_image_urls_leave_the_other_jobs_their_threads(
    fresh_stack: Stack, fresh_client: Client
) -> None:
    with (
        Dripping(COUNT, first=BODY, network=1) as bodies,
        Dripping(COUNT, first=HEADER, network=2) as headers,
    ):
        # Given more image URLs that drip than the worker has threads, of many receivers
        for number in range(COUNT):
            fresh_client.submit(bodies.url(number, "/a.png?b=c"))
            fresh_client.submit(headers.url(number, "/a.png?b=c"))
        until(lambda: bodies.connected or headers.connected)

        # When jobs come whose images are in our own store
        began = time.monotonic()
        image = Image.new("RGB", (64, 48), "teal")
        good = [fresh_client.submit(image) for _ in range(10)]

        # Then they are done meanwhile
        for job in good:
            job.wait(timeout=40)
        assert time.monotonic() - began < 30  # those of the receivers are given up after sixty
        assert bodies.most_at_once + headers.most_at_once <= 3
        # And a worker that is told to end does so within its drain, and gives its jobs back
        child = fresh_stack.workers.pop().child
        os.kill(child.pid, signal.SIGTERM)
        until(lambda: child.returncode is not None, within_s=DRAIN_S + 10)
        assert child.returncode == 0
        counted = Counter(record.status for record in fresh_client.list(limit=100).records)
        assert counted == {JobStatus.SUCCEEDED: len(good), JobStatus.QUEUED: 2 * COUNT}
