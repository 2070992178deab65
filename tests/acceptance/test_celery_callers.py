"""A plain Celery app that imports none of our code: `maskq.segment` by name, `.get()`, a chain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from demo_scenes.scenes import draw
from support.stack_jobs import jpeg
from support.waiting import until

from maskq import Client, JobStatus
from maskq_standalone.stack import Stack

# Runs in a process of its own, with Celery and nothing of ours.
CALLER = """
import os, sys
from celery import Celery, chain, signature
app = Celery("shop", broker=os.environ["URL"], backend=os.environ["URL"])
app.conf.task_default_queue = "shop"

@app.task(name="shop.count")
def count(result):
    return sum(entry["pixels"] for entry in result["stats"])

def main(what, image):
    request = {"image_uri": image, "outputs": ["mask", "stats"]}
    segment = signature("maskq.segment", args=[request], queue="maskq", app=app)
    if what == "get":
        args = [{"image_uri": image}]
        result = app.send_task("maskq.segment", args=args, queue="maskq").get(timeout=60)
        print(result["width"], result["height"], result["outputs"]["mask"].startswith("s3://"))
    if what == "chain":
        print(chain(segment, count.s().set(queue="shop")).apply_async().get(timeout=90))
    if what == "fail":
        try:
            segment.apply_async().get(timeout=60)
        except Exception as error:
            print(type(error).__name__, error)
    assert not [name for name in sys.modules if name.split(".")[0].startswith("maskq")]

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.fixture
def caller(tmp_path: Path) -> Path:
    script = tmp_path / "shop.py"
    script.write_text(CALLER)
    return script


def put_scene(stack: Stack, *, size: tuple[int, int]) -> str:
    image = draw(21, size=(320, 240)).image.resize(size)
    key = f"shop/{size[0]}.jpg"
    stack.s3.client().put_object(Bucket="maskq", Key=key, Body=jpeg(image))
    return f"s3://maskq/{key}"


def start(script: Path, stack: Stack, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env={**os.environ, "URL": stack.redis.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip()


@contextmanager
def own_worker(caller: Path, stack: Stack) -> Iterator[None]:
    """The caller's own Celery worker, for the task that follows in the chain."""
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "shop", "worker", "-P", "solo", "-Q", "shop"],
        cwd=caller.parent,
        env={**os.environ, "URL": stack.redis.url},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_get_returns_the_result(stack: Stack, credentials: None, caller: Path) -> None:
    image = put_scene(stack, size=(320, 240))
    assert output_of(start(caller, stack, "get", image)) == "320 240 True"


def test_a_failure_reaches_get_with_its_code(stack: Stack, credentials: None, caller: Path) -> None:
    missing = output_of(start(caller, stack, "fail", "s3://maskq/nowhere.jpg"))
    assert missing.startswith("SegmentRefused not_found: ")
    invalid = output_of(start(caller, stack, "fail", "ftp://elsewhere/image.jpg"))
    assert invalid.startswith("SegmentRefused invalid_request: image_uri")


def test_a_chain_goes_on_with_the_caller_s_own_task(
    stack: Stack, credentials: None, caller: Path
) -> None:
    image = put_scene(stack, size=(320, 240))
    with own_worker(caller, stack):
        assert output_of(start(caller, stack, "chain", image)) == str(320 * 240)


def test_a_chain_survives_the_death_of_the_first_worker(
    fresh_stack: Stack, fresh_client: Client, caller: Path
) -> None:
    # Given a chain whose first task is in the hands of the only worker
    victim = fresh_stack.start_worker()
    image = put_scene(fresh_stack, size=(4800, 3600))
    with own_worker(caller, fresh_stack):
        chain = start(caller, fresh_stack, "chain", image)
        until(lambda: fresh_client.list(status=JobStatus.RUNNING).records)

        # When that worker is killed and another one comes
        os.kill(victim.pid, signal.SIGKILL)
        fresh_stack.start_worker()

        # Then the chain ends as if nothing had happened
        assert output_of(chain) == str(4800 * 3600)
