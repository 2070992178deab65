"""The examples for FastAPI, Django and scripts with `maskq_fake`.

tests/acceptance/test_examples.py runs the same programs on a real stack.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient
from support.waiting import until

from maskq import QueueFull
from maskq.testing import FakeClient, damaged_image_bytes, image_bytes
from maskq_standalone.pytest_plugin import maskq_fake

__all__ = ["maskq_fake"]  # a fixture of the plugin
PHOTO = image_bytes((60, 40))
UNKNOWN = "0199d3c0-0000-7000-8000-000000000000"


def example(name: str) -> ModuleType:
    return importlib.import_module(f"examples.{name}")


# --- FastAPI ------------------------------------------------------------------------------------------


@pytest.fixture
def backend(maskq_fake: FakeClient) -> Iterator[TestClient]:
    with TestClient(example("fastapi_backend").app) as client:
        yield client


def test_fastapi_stores_what_its_webhook_brings(
    backend: TestClient, maskq_fake: FakeClient
) -> None:
    def post(url: str, headers: Any, body: bytes) -> int:
        return backend.post(url, content=body, headers=dict(headers)).status_code

    answer = backend.post("/photos", files={"photo": PHOTO})
    assert answer.status_code == 202
    place = f"/photos/{answer.json()['id']}"
    assert backend.get(place).json() == {"status": "in progress"}
    assert maskq_fake.fake.deliver_webhooks(post) == 1
    ended = backend.get(place).json()
    assert (ended["status"], ended["width"], ended["height"]) == ("succeeded", 60, 40)
    assert backend.post("/hooks/maskq", json={"subject": "x"}).status_code == 400
    assert maskq_fake.fake.webhooks == []


def test_fastapi_tells_a_browser_each_state(backend: TestClient, maskq_fake: FakeClient) -> None:
    with ExitStack() as browser:
        with maskq_fake.fake.paused():
            job_id = backend.post("/photos", files={"photo": PHOTO}).json()["id"]
            answer = browser.enter_context(backend.stream("GET", f"/photos/{job_id}/events"))
            lines = (line for line in answer.iter_lines() if line)
            assert next(lines) == "data: queued"
        assert list(lines)[-1] == "data: succeeded"
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert backend.get(f"/photos/{UNKNOWN}/events").status_code == 404
    assert example("fastapi_backend").watchers == {}


def test_fastapi_browsers_reconnect_after_an_outage(
    backend: TestClient, maskq_fake: FakeClient
) -> None:
    module = example("fastapi_backend")
    with maskq_fake.fake.paused():
        job_id = backend.post("/photos", files={"photo": PHOTO}).json()["id"]
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        module.watchers[job_id].add(queue)
        with maskq_fake.fake.outage():
            until(lambda: not queue.empty())
        assert queue.get_nowait() is None
        module.stop_watching(job_id, queue)


# --- Django -------------------------------------------------------------------------------------------


def test_django_takes_photos_and_a_task_follows(
    maskq_fake: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_CACHE", str(tmp_path))
    shop = example("django_shop")  # settings are configured once a process: one test
    shop.celery.conf.task_always_eager = True
    from django.test import Client as Browser

    browser = Browser()

    def post(url: str, headers: Any, body: bytes) -> int:
        kind = "application/json"
        answer = browser.post("/hooks/maskq", body, content_type=kind, headers=headers)
        return int(answer.status_code)

    def submit() -> Any:
        path = tmp_path / "photo.png"
        path.write_bytes(PHOTO)
        with path.open("rb") as photo:
            return browser.post("/photos", {"photo": photo})

    answer = submit()
    assert answer.status_code == 202
    place = f"/photos/{answer.json()['id']}"
    assert browser.get(place).json() == {"status": "succeeded", "largest": None}
    assert maskq_fake.fake.deliver_webhooks(post) == 1
    assert browser.get(place).json()["largest"] in maskq_fake.fake.labels
    assert browser.post("/hooks/maskq", b"{}", content_type="application/json").status_code == 400
    assert browser.get(f"/photos/{UNKNOWN}").status_code == 404
    maskq_fake.fake.fail_next("out_of_memory")
    failed = submit().json()["id"]
    assert maskq_fake.fake.deliver_webhooks(post) == 1
    assert browser.get(f"/photos/{failed}").json() == {"status": "failed", "largest": None}


# --- a script -----------------------------------------------------------------------------------------


def test_script_saves_the_masks_of_a_folder_and_names_failures(
    maskq_fake: FakeClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    for name in "ab":
        (photos / f"{name}.png").write_bytes(PHOTO)
    (photos / "c.png").write_bytes(damaged_image_bytes())
    script = example("masks_of_folder")
    assert script.main(str(photos), str(masks)) == 1
    assert sorted(path.name for path in masks.iterdir()) == ["a.png", "b.png"]
    assert "c: not a supported image format" in capsys.readouterr().err
    assert script.main(str(photos), str(masks)) == 1
    assert len(maskq_fake.list().records) == 3


def test_script_waits_while_the_queue_is_full(maskq_fake: FakeClient, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(PHOTO)
    maskq_fake.fake.refuse_next(QueueFull("the queue is full"), times=2)
    assert example("masks_of_folder").main(str(tmp_path / "photos"), str(tmp_path / "masks")) == 0
