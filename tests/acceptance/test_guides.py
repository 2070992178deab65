"""The code of the guides is run as it stands, page by page, against one whole stack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.checkpoints import write_smallest
from PIL import Image
from support.acl_stack import AclStack, variables_of
from support.pages import run

from maskq import Client, JobStatus
from maskq_standalone.ports import free_port
from maskq_standalone.stack import Stack

SIZE = (64, 48)


@pytest.fixture
def stack(webhook_stack: Stack) -> Stack:
    return webhook_stack


@pytest.fixture(autouse=True)
def folder(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pages expect where they run: images, and the settings of a running stack."""
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    photo = Image.effect_noise(SIZE, 50).convert("RGB")
    (tmp_path / "photos").mkdir()
    for path in ("photo.jpg", "photos/1.jpg", "photos/2.jpg"):
        photo.save(path)
    return tmp_path


@pytest.fixture
def operator(stack: Stack, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under --acl-users a shell with all rights, for pages whose reader does more than submit: starts a
    worker, or signs URLs of a customer's bucket."""
    if isinstance(stack, AclStack):
        for name, value in stack.as_operator().items():
            monkeypatch.setenv(name, value)


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with Client.from_env() as connected:
        yield connected


@pytest.fixture
def bucket(stack: Stack, folder: Path) -> None:
    """A customer's bucket `photos` with `1.jpg`."""
    s3 = stack.s3.client()
    s3.create_bucket(Bucket="photos")
    s3.upload_file("photo.jpg", "photos", "1.jpg")


@pytest.mark.usefixtures("operator", "bucket")
def test_python_page_runs(client: Client) -> None:
    names = run("docs/python.md", {})
    names["client"].close()
    assert names["mask"].size == SIZE
    saved = {path.name.partition(".")[2]: path for path in names["paths"]}
    assert set(saved) == {"mask.png", "overlay.jpg", "stats.json"}
    with Image.open(saved["mask.png"]) as mask, Image.open(saved["overlay.jpg"]) as overlay:
        assert mask.size == overlay.size == SIZE
    assert client.list(status=JobStatus.FAILED).records[0].error is not None


def test_precision_page_says_what_is_uncertain() -> None:
    names = run("docs/precision.md", {})
    details = names["result"].details
    assert (details.precision, details.dtype, details.uncertain_share) == ("exact", "float32", 0.0)
    assert (names["uncertain"].mode, names["uncertain"].size) == ("1", SIZE)
    assert not names["uncertain"].getextrema()[1]


def test_command_line_page_saves_files(client: Client) -> None:
    run("docs/command-line.md", {})
    saved = {path.name for path in Path("masks").iterdir()}
    assert {"photo.mask.png", "photo.overlay.jpg", "stdin.mask.png"} <= saved


def test_bulk_page_submits_each_image_once(client: Client) -> None:
    run("docs/bulk.md", {"client": client})
    assert len(Path("maskq-photos.jsonl").read_text(encoding="utf-8").splitlines()) >= 2


def test_webhooks_and_events_page_delivers_and_reads(client: Client) -> None:
    run("docs/webhooks-and-events.md", {"client": client}, **{"8099": str(free_port())})
    assert "maskq.job.succeeded" in Path("event.json").read_text(encoding="utf-8")


@pytest.mark.usefixtures("operator")
def test_checkpoints_page_serves_a_checkpoint_of_a_folder(client: Client, folder: Path) -> None:
    write_smallest(folder / "mine")
    run("docs/checkpoints.md", {})
    assert client.list(model="mine").records[0].status is JobStatus.SUCCEEDED


@pytest.mark.usefixtures("operator", "bucket")
def test_celery_page_gets_a_mask(
    client: Client, stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    as_celery = stack.environment | variables_of(stack, "celery")
    names = run("docs/celery.md", {"client": client, "REDIS_URL": as_celery["MASKQ_REDIS_URL"]})
    names["app"].close()
    assert "/mask.png" in capsys.readouterr().out
