"""What Celery's callers may say beside the request: priority, times, callbacks, chords; and errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
import pytest
import redis
from acceptance.test_celery_callers import own_worker, put_scene
from support.waiting import until

from maskq import Client, FailureCode, JobNotFound, JobStatus
from maskq_standalone.stack import Stack

# The caller, a process of its own: it reads what to send, a JSON document a line, and writes what came.
# Its tasks are run by a worker of its own.
SHOP = """
import json, os, sys
from celery import Celery, chord
from celery.result import AsyncResult
app = Celery("shop", broker=os.environ["URL"], backend=os.environ["URL"])
old = Celery("old", broker=os.environ["URL"], backend=os.environ["URL"], set_as_current=False)
old.conf.task_protocol = 1

@app.task(name="shop.sum")
def total(results):
    return sum(result["width"] for result in results)

@app.task(name="shop.note")
def note(*what):
    app.backend.client.rpush("shop:noted", str(what[0]))

def part(uri):
    return app.signature("maskq.segment", args=[{"image_uri": uri}], queue="maskq")

def sent(what):
    if "chord" in what:
        then = total.s().set(queue="shop")
        return chord([part(uri) for uri in what["chord"]], then).apply_async()
    if "link_error" in what:
        return part(what["link_error"]).apply_async(link_error=note.s().set(queue="shop"))
    if "protocol" in what:
        return old.send_task("maskq.segment", queue="maskq", args=what["args"])
    if "get" in what:
        return AsyncResult(what["get"], app=app)
    return app.send_task("maskq.segment", queue="maskq", **what)

def answer(what):
    wait = what.pop("wait", True)
    result = sent(what)
    if not wait:
        return {"id": result.id}
    try:
        return {"id": result.id, "result": result.get(timeout=60)}
    except Exception as error:
        kind, text = type(error).__name__, str(error)
        return {"id": result.id, "error": [kind, text, getattr(error, "code", None)]}

if __name__ == "__main__":
    import maskq.errors
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
"""
LATER_S = 3.0


class Shop:
    """The caller's process."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.script = directory / "shop.py"
        self.script.write_text(SHOP)
        self._process = subprocess.Popen(
            [sys.executable, str(self.script)],
            env={**os.environ, "URL": stack.redis.url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **what: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def send(self, image: str, **options: Any) -> str:
        """The task id, at once."""
        return str(self.ask(args=[{"image_uri": image}], wait=False, **options)["id"])

    def width(self, image: str, **options: Any) -> int:
        """Of the result, once it is there."""
        return int(self.ask(args=[{"image_uri": image}], **options)["result"]["width"])

    def refused(self, **what: Any) -> tuple[str, str]:
        """Code and text of the error that `.get()` raised."""
        kind, text, code = self.ask(**what)["error"]
        assert kind == "SegmentRefused"
        assert text.startswith(f"{code}: ")
        return code, text

    def close(self) -> None:
        self._process.communicate(timeout=30)


@pytest.fixture(scope="module")
def shop(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(stack, tmp_path_factory.mktemp("shop"))
    yield shop
    shop.close()


@pytest.fixture
def image(stack: Stack, credentials: None) -> str:
    return put_scene(stack, size=(64, 48))


def known(client: Client, task_id: str) -> bool:
    """Whether a worker has written the record."""
    try:
        client.get(task_id).refresh()
    except JobNotFound:
        return False
    return True


def log_of(stack: Stack) -> str:
    return (stack.directory / "logs" / "worker-1.log").read_text()


@pytest.mark.parametrize("priority", [0, 1, 3, 6, 9])
def test_a_message_of_any_priority_is_answered(shop: Shop, image: str, priority: int) -> None:
    assert shop.width(image, priority=priority) == 64


def test_the_request_may_be_a_keyword_argument(shop: Shop, image: str) -> None:
    assert shop.ask(kwargs={"request": {"image_uri": image}})["result"]["width"] == 64


@pytest.mark.parametrize(
    "given",
    [
        {"kwargs": {"image_uri": "s3://maskq/x.png"}},
        {"args": []},
        {"args": ["s3://maskq/x.png", {"outputs": ["mask"]}]},
        {"args": [{}], "kwargs": {"request": {}}},
        {"kwargs": {"self": 1, "request": {}}},
    ],
)
def test_another_form_is_refused_with_the_right_one(
    shop: Shop, credentials: None, given: dict[str, Any]
) -> None:
    code, text = shop.refused(**given)
    assert code == FailureCode.INVALID_REQUEST
    assert "args=[request] or kwargs={'request': request}" in text


def test_an_invalid_request_is_one_line_in_the_log(shop: Shop, stack: Stack, image: str) -> None:
    before = log_of(stack)
    bad = {"image_uri": "ftp://elsewhere/image.jpg", "outputs": ["x" * 100_000]}
    code, text = shop.refused(args=[bad])
    assert code == FailureCode.INVALID_REQUEST
    assert text.startswith("invalid_request: image_uri: ")
    assert shop.width(image) == 64
    new = log_of(stack).removeprefix(before)
    assert len([line for line in new.splitlines() if "is refused (invalid_request)" in line]) == 1
    assert "Traceback" not in new
    assert max(map(len, new.splitlines())) < 4000


def test_a_caller_whose_app_writes_other_messages_is_told(shop: Shop, image: str) -> None:
    request = {"args": [{"image_uri": image}]}
    for options, named in (
        ({"compression": "gzip"}, "task_compression"),
        ({"serializer": "pickle"}, "task_serializer"),
        ({"protocol": 1}, "task_protocol"),
    ):
        code, text = shop.refused(**request, **options)
        assert code == FailureCode.INVALID_REQUEST
        assert named in text
    assert shop.width(image) == 64


def test_what_has_expired_is_not_run(shop: Shop, client: Client, image: str) -> None:
    task_id = shop.send(image, expires=-5)
    code, _ = shop.refused(get=task_id)
    assert code == FailureCode.EXPIRED
    assert client.get(task_id).refresh().status is JobStatus.EXPIRED


def test_a_job_is_taken_back_by_its_task_id(shop: Shop, client: Client, image: str) -> None:
    task_id = shop.send(image, countdown=3600)
    until(lambda: known(client, task_id))
    client.get(task_id).cancel()
    code, _ = shop.refused(get=task_id)
    assert code == FailureCode.CANCELED


NO_SEGMENT = pytest.mark.direct_only("'..' cannot be a segment of a URL's path")


@pytest.mark.parametrize("task_id", ["incoming", pytest.param("..", marks=NO_SEGMENT), "2026"])
def test_a_task_id_that_is_no_uuid_is_found_and_taken_back_by_it(
    shop: Shop, client: Client, stack: Stack, image: str, task_id: str
) -> None:
    # Its result, by Celery
    assert shop.width(image, task_id=task_id) == 64
    with redis.Redis.from_url(stack.redis.url) as raw:
        until(lambda: raw.zcard("maskq:answers") == 0)
    # Its record, from a shell
    status = [sys.executable, "-m", "maskq", "status", "--json", task_id]
    ran = subprocess.run(status, capture_output=True, text=True, check=True, timeout=60)
    (shown,) = json.loads(ran.stdout)["jobs"]
    assert (shown["status"], shown["alias"]) == ("succeeded", task_id)
    job = client.get(task_id)
    assert uuid.UUID(job.id)
    assert job.result().mask().size == (64, 48)
    assert f"/{job.id}/" in job.result().uri("mask")
    # And the job of another one is taken back
    later = f"{task_id}-later"
    shop.send(image, task_id=later, countdown=3600)
    until(lambda: known(client, later))
    assert client.get(later).cancel()
    assert shop.refused(get=later)[0] == FailureCode.CANCELED


def test_who_wants_no_result_stores_none(
    shop: Shop, client: Client, stack: Stack, image: str
) -> None:
    quiet = shop.send(image, ignore_result=True)
    assert shop.width(image) == 64
    with redis.Redis.from_url(stack.redis.url) as raw:
        until(lambda: known(client, quiet) and client.get(quiet).refresh().ended)
        until(lambda: raw.zscore("maskq:answers", quiet) is None)
        assert raw.get(f"celery-task-meta-{quiet}") is None
    assert client.get(quiet).refresh().status is JobStatus.SUCCEEDED


def test_chords_and_callbacks_of_good_and_bad_requests(
    shop: Shop, stack: Stack, image: str
) -> None:
    before = log_of(stack)
    with own_worker(shop.script, stack), redis.Redis.from_url(stack.redis.url) as raw:
        # A chord of good requests, and one with a member that is refused
        assert shop.ask(chord=[image, image])["result"] == 128
        code, _ = shop.refused(chord=[image, "ftp://no"])
        assert code == FailureCode.INVALID_REQUEST
        # link_error of a request that is refused and of a job that fails
        failing = {
            shop.ask(link_error=uri)["id"].encode() for uri in ("ftp://no", "s3://maskq/none.jpg")
        }
        until(lambda: raw.llen("shop:noted") == 2, within_s=60)
        assert set(raw.lrange("shop:noted", 0, -1)) == failing
    assert "Traceback" not in log_of(stack).removeprefix(before)


def test_a_callback_that_cannot_be_sent_is_told_once(
    shop: Shop, client: Client, stack: Stack, image: str
) -> None:
    link = [{"task": "shop.note", "args": [], "kwargs": {}, "options": {"serializer": "none such"}}]
    answer = shop.ask(args=[{"image_uri": image}], link=link)
    assert "none such" in answer["error"][1]
    assert client.get(answer["id"]).refresh().status is JobStatus.SUCCEEDED
    with redis.Redis.from_url(stack.redis.url) as raw:
        until(lambda: raw.zscore("maskq:answers", answer["id"]) is None)
    assert shop.width(image) == 64


# --- the exception in the caller's process ------------------------------------------------------------

RAISES = """
import json, os, sys
from celery import Celery
if "import" in sys.argv:
    from maskq.errors import SegmentRefused
app = Celery("shop", broker=os.environ["URL"], backend=os.environ["URL"])
try:
    app.send_task("maskq.segment", args=[{"image_uri": "ftp://x"}], queue="maskq").get(timeout=60)
except Exception as error:
    mine = "import" in sys.argv and isinstance(error, SegmentRefused)
    print(json.dumps([type(error).__name__, str(error), getattr(error, "code", None), mine]))
print(json.dumps([name for name in sys.modules if name.partition(".")[0] == "maskq"] != []))
"""


@pytest.mark.parametrize("has_maskq", [True, False])
def test_the_exception_has_a_code_where_maskq_is_installed_and_reads_well_elsewhere(
    has_maskq: bool, stack: Stack, credentials: None
) -> None:
    # Without `site` the editable install is not found: Python sees what Celery needs and no more.
    packages = str(Path(celery.__file__).parents[1])
    command = [sys.executable, *([] if has_maskq else ["-S"]), "-c", RAISES]
    ran = subprocess.run(
        [*command, "import"] if has_maskq else command,
        env={"URL": stack.redis.url, "PATH": os.environ["PATH"]}
        | ({} if has_maskq else {"PYTHONPATH": packages}),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    raised, imported = map(json.loads, ran.stdout.splitlines())
    name, text, code, is_ours = raised
    assert name == "SegmentRefused"
    assert text.startswith("invalid_request: image_uri: ")
    assert (code, is_ours, imported) == (
        ("invalid_request", True, True) if has_maskq else (None, False, False)
    )


# --- deferred jobs ------------------------------------------------------------------------------------


def test_a_deferred_job_survives_its_worker_and_starts_on_time(
    fresh_stack: Stack, fresh_client: Client, tmp_path: Path
) -> None:
    # Given two jobs that are deferred, one behind a priority, in the hands of the only worker
    first = fresh_stack.start_worker()
    image = put_scene(fresh_stack, size=(64, 48))
    shop = Shop(fresh_stack, tmp_path)
    sent = [shop.send(image, countdown=LATER_S), shop.send(image, countdown=LATER_S, priority=6)]
    waiting = until(lambda: len(found := fresh_client.list().records) == 2 and found)
    assert all(record.status is JobStatus.QUEUED for record in waiting)
    due_ms = {record.id: record.not_before_ms or sys.maxsize for record in waiting}

    # When it is told to stop, as in any deployment, and another one comes
    first.child.terminate()
    first.child.wait_ended(30, lambda: False)
    fresh_stack.start_worker()

    # Then both are done, and neither was begun too early
    for task_id in sent:
        assert shop.ask(get=task_id)["result"]["width"] == 64
        assert (fresh_client.get(task_id).refresh().started_ms or 0) >= due_ms[task_id]
    shop.close()
