"""Waiting for a batch, its results and progress, and pages of jobs; over both transports."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.damaged import damaged
from support.transports import TRANSPORTS, connected
from support.working import working

from maskq import (
    AsyncClient,
    BatchProgress,
    Client,
    JobFailed,
    JobNotFound,
    JobStatus,
    Page,
    WaitTimeout,
)


@pytest.fixture(params=TRANSPORTS)
def client(
    request: pytest.FixtureRequest, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    with connected(request.param, monkeypatch) as (made, _):
        yield made


def png(width: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, 40), "teal").save(buffer, "PNG")
    return buffer.getvalue()


SIZES = [(60, 40), (50, 40), (40, 40)]
IMAGES = [png(width) for width, _ in SIZES]


def test_results_come_in_the_order_of_the_images(client: Client, bench: Bench) -> None:
    batch = client.submit_many(IMAGES)
    with working(bench):
        results = batch.results(timeout=60)
    assert [result.size for result in results] == SIZES
    assert [job.id for job in batch] == [result.job_id for result in results]
    assert all(job.record and job.status is JobStatus.SUCCEEDED for job in batch)


def test_wait_tells_its_progress_and_a_failed_job_stops_nothing(
    client: Client, bench: Bench
) -> None:
    batch = client.submit_many([IMAGES[0], damaged(), IMAGES[1]])
    told: list[BatchProgress] = []
    with working(bench):
        progress = batch.wait(timeout=60, on_progress=told.append)
    assert progress.counts == {JobStatus.SUCCEEDED: 2, JobStatus.FAILED: 1}
    assert (told[0].finished, told[-1].finished, told[-1].total) == (0, 3, 3)
    assert [one.finished for one in told] == sorted(one.finished for one in told)
    assert sorted(progress.ended) == sorted(job.id for job in batch)
    with pytest.raises(JobFailed) as raised:
        batch.results(timeout=60)
    assert raised.value.record.id == batch.jobs[1].id
    assert [job.result().size for job in batch if job.record and job.record.result] == SIZES[:2]


def test_a_wait_that_is_over_says_how_many_are_left(client: Client) -> None:
    batch = client.submit_many(IMAGES)
    batch.jobs[1].cancel()
    with pytest.raises(WaitTimeout, match=rf"2 of 3 jobs of batch {batch.id} .* after 0\.3 s"):
        batch.wait(timeout=0.3)


def test_a_deleted_job_has_no_result(client: Client, bench: Bench) -> None:
    batch = client.submit_many(IMAGES)
    with working(bench):
        batch.wait(timeout=60)
    client.delete(batch.jobs[1].id)
    with pytest.raises(JobNotFound):
        batch.results(timeout=60)


def test_awaited_it_does_the_same(client: Client, bench: Bench) -> None:
    async def run() -> list[tuple[int, int]]:
        async with AsyncClient.from_env() as awaited:
            batch = await awaited.submit_many(IMAGES)
            told: list[BatchProgress] = []
            results = await batch.results(timeout=60, on_progress=told.append)
            assert told[-1].finished == 3
            found = [record.id async for record in awaited.list_all(batch_id=batch.id)]
            assert sorted(found) == sorted(job.id for job in batch)
            assert "60 × 40" in results[0]._repr_html_()  # noqa: RUF001
            return [result.size for result in results]

    with working(bench):
        assert asyncio.run(run()) == SIZES


def test_all_pages_are_read_as_they_are_needed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskq.client.client.PAGE", 2)
    ids = [job.id for job in client.submit_many(IMAGES + IMAGES)]
    client.submit(IMAGES[0], tenant="acme")
    page = client.list(limit=2)
    assert isinstance(page, Page)
    assert (len(page), [record.id for record in page]) == (2, [one.id for one in page.records])
    everything = client.list_all()
    assert next(everything).tenant == "acme"
    assert sorted(record.id for record in everything) == sorted(
        ids
    )  # within a millisecond any order
    assert [record.tenant for record in client.list_all(tenant="acme")] == ["acme"]
    assert list(client.list_all(status="failed")) == []


# --- notebooks ----------------------------------------------------------------------------------------


def test_a_notebook_displays_jobs_batches_and_pages(client: Client, bench: Bench) -> None:
    batch = client.submit_many([IMAGES[0], damaged("<b>")])
    assert "not read yet" in batch._repr_html_()
    with working(bench):
        batch.wait(timeout=60)
    for shown in (batch._repr_html_(), client.list()._repr_html_()):
        assert shown.count("<tr>") == 3
        assert "succeeded" in shown
        assert "invalid_image" in shown
    assert batch.jobs[0].id in batch.jobs[0]._repr_html_()
    client.submit(IMAGES[0], tenant="acme", metadata={"a": "<script>"}).cancel()
    assert "<script>" not in client.list()._repr_html_()


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a notebook's cell shows, one after the other: IPython without a kernel."""
    from IPython.core.interactiveshell import InteractiveShell

    shown: list[str] = []
    shell: Any = InteractiveShell.instance()
    monkeypatch.setattr(shell, "kernel", SimpleNamespace(), raising=False)
    monkeypatch.setattr(
        shell.display_pub, "publish", lambda data, **_: shown.append(data["text/html"])
    )
    yield shown
    InteractiveShell.clear_instance()


def test_a_notebook_shows_a_batch_s_progress_while_it_waits(
    client: Client, bench: Bench, notebook: list[str]
) -> None:
    batch = client.submit_many(IMAGES)
    with working(bench):
        batch.wait(timeout=60)
    assert f"batch {batch.id}: 0 of 3 ended" in notebook[0]
    assert "3 of 3 ended (3 succeeded)" in notebook[-1]
    assert '<progress max="3" value="3"' in notebook[-1]
    count = len(notebook)
    batch.wait(timeout=60, on_progress=lambda progress: None)
    assert len(notebook) == count


def test_elsewhere_nothing_is_shown(
    client: Client, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = client.submit_many(IMAGES)
    with working(bench):
        batch.wait(timeout=60)
    assert capsys.readouterr().out == ""
