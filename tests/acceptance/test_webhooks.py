"""A signed webhook tells the end of a job: the whole stack, the command line as receiver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maskq import Client
from maskq_standalone.stack import Stack

MASKQ = Path(sys.executable).with_name("maskq")


@pytest.fixture
def client(webhook_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    for name, value in webhook_stack.environment.items():
        monkeypatch.setenv(name, value)
    with Client.from_env() as made:
        yield made


def test_a_finished_job_reaches_its_receiver(webhook_stack: Stack, client: Client) -> None:
    # Given a receiver that verifies
    listening = subprocess.Popen(
        [str(MASKQ), "webhooks", "listen", "--port", "0", "--count", "1"],
        env={**os.environ, **webhook_stack.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert listening.stderr is not None
        url = listening.stderr.readline().split()[-1]

        # When a job ends
        job = client.submit(Image.new("RGB", (64, 48), "teal"), webhook=url)
        job.wait(timeout=60)

        # Then the receiver has its event, and the delivery is on record
        out, err = listening.communicate(timeout=60)
    finally:
        listening.kill()
    assert listening.returncode == 0, err
    event = json.loads(out)
    assert (event["subject"], event["type"]) == (job.id, "maskq.job.succeeded")
    assert event["data"]["result"]["width"] == 64
    delivery = _delivered(webhook_stack, job.id)
    assert delivery["url"] == url
    assert delivery["log"][0]["status"] == 200


def _delivered(stack: Stack, job_id: str) -> dict[str, Any]:
    """As the command line shows it; it is noted a moment after the receiver answered."""
    end = time.monotonic() + 60
    while True:
        listed = subprocess.run(
            [str(MASKQ), "webhooks", "list", job_id, "--json"],
            env={**os.environ, **stack.environment},
            capture_output=True,
            text=True,
            check=True,
        )
        (delivery,) = json.loads(listed.stdout)["deliveries"]
        if delivery["state"] != "pending":
            found: dict[str, Any] = delivery
            return found
        assert time.monotonic() < end, delivery
