"""Real processes under other forms of MASKQ_REDIS_URL, and under ones that cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from PIL import Image

from maskq import Client
from maskq_standalone.stack import Stack

MASKQ = str(Path(sys.executable).with_name("maskq"))
IMAGE = Image.new("RGB", (64, 48), "teal")
OPTIONS = "db=3&socket_timeout=7&protocol=2&health_check_interval=0&client_name=of-maskq"
CALLER = """
import os
from celery import Celery
app = Celery("shop", broker=os.environ["URL"], backend=os.environ["URL"])
sent = app.send_task("maskq.segment", args=[{"image_uri": os.environ["IMAGE"]}], queue="maskq")
print(sent.get(timeout=60)["width"])
"""


@pytest.mark.direct_only("a client over HTTP has no URL of Redis")
def test_a_worker_serves_what_the_url_says(
    fresh_stack: Stack, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fresh_stack.redis.url.removesuffix("/0")
    there = {"MASKQ_REDIS_URL": f"{plain}?{OPTIONS}"}
    monkeypatch.setenv("MASKQ_REDIS_URL", there["MASKQ_REDIS_URL"])
    fresh_stack.start_workers(1, there)
    with Client.from_env() as client:
        job = client.submit(IMAGE)
        assert job.wait(timeout=60).details.width == IMAGE.width
        image = job.refresh().request.image_uri
    said = subprocess.run(
        [sys.executable, "-c", CALLER],
        env={**os.environ, "URL": f"{plain}/3", "IMAGE": image},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert said.stdout.strip() == "64", said.stderr
    with redis.Redis.from_url(fresh_stack.redis.url, decode_responses=True) as admin:
        assert admin.dbsize() == 0  # all of it is in database 3
        names = {client["name"] for client in admin.client_list() if client["db"] == "3"}
        assert names == {"of-maskq"}


def test_a_url_that_cannot_be_used_ends_a_worker_with_78_and_one_line() -> None:
    """Of the other roles: tests/unit/client/test_settings_by_file.py."""
    said = subprocess.run(
        [sys.executable, "-m", "maskq_worker"],
        env=os.environ
        | {
            "MASKQ_REDIS_URL": "redis://:swordfish@127.0.0.1:1/0?socket_timout=9",
            "MASKQ_MODEL": "demo",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 78, said.stderr
    assert said.stderr.count("\n") == 1, said.stderr
    assert "has an unknown parameter 'socket_timout'; did you mean socket_timeout?" in said.stderr
    assert "swordfish" not in said.stderr
