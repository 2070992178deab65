"""maskq compare, on both transports: failures are counted; a run that ends early cancels its jobs."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from support.damaged import damaged
from support.transports import TRANSPORTS, connected

from maskq import Client, JobStatus
from maskq.cli import main
from maskq.contract import FailureCode, JobFailure
from maskq.contract.ids import new_token
from maskq.ledger import calls

BROKEN = JobFailure(code=FailureCode.INVALID_IMAGE, message="not an image")
Compare = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=TRANSPORTS)
def direct(
    environment: dict[str, str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    with connected(request.param, monkeypatch) as (_, client):
        client.session.ledger.run(calls.register_model("old", {}))
        yield client


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Compare:
    """Runs the command in this process; returns its exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["maskq", "compare", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(2):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "damaged.png").write_bytes(damaged("png"))
    return tmp_path


def fail_everything(direct: Client, stop: threading.Event) -> None:
    ledger = direct.session.ledger
    while not stop.wait(0.02):
        for model in ("old", "new"):
            token = new_token()
            claimed = ledger.run(calls.claim(model, token, owner="x:1", lease_s=60))
            if claimed.job_id:
                ledger.run(calls.fail(claimed.job_id, token, JobStatus.FAILED, BROKEN))


def test_jobs_that_fail_are_counted_by_their_reason(
    direct: Client, compare: Compare, images: Path
) -> None:
    direct.session.ledger.run(calls.register_model("new", {}))
    stop = threading.Event()
    worker = threading.Thread(target=fail_everything, args=(direct, stop))
    worker.start()
    try:
        code, out, _ = compare("old", "new", str(images), "--json")
    finally:
        stop.set()
        worker.join()
    assert code == 1
    report = json.loads(out)
    assert (report["images"], report["differing_share"], report["each"]) == (0, 0.0, [])
    assert report["skipped"] == {"old failed: invalid_image": 3}
    # Both models got every image, at low priority, and nothing but masks was asked for.
    records = list(direct.list_all())
    assert len(records) == 6
    assert {(one.priority, *one.request.outputs) for one in records} == {("low", "mask")}


def test_an_unknown_second_model_cancels_the_jobs_of_the_first(
    direct: Client, compare: Compare, images: Path
) -> None:
    code, _, err = compare("old", "new", str(images))
    assert code == 1
    assert "model 'new' is not known here" in err
    assert {one.status for one in direct.list_all()} == {JobStatus.CANCELED}


def test_a_wait_that_ends_cancels_the_jobs(direct: Client, compare: Compare, images: Path) -> None:
    direct.session.ledger.run(calls.register_model("new", {}))
    code, _, _ = compare("old", "new", str(images), "--timeout", "0.05")
    assert code == 1
    assert {one.status for one in direct.list_all()} == {JobStatus.CANCELED}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("old", "old", "{images}"), "A and B are the same model, old"),
        (("old", "new", "{images}/none"), "does not exist"),
        (("old", "new", "{images}/empty"), "found no image"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    direct: Client, compare: Compare, images: Path, arguments: tuple[str, ...], reason: str
) -> None:
    (images / "empty").mkdir()
    code, _, err = compare(*(one.format(images=images) for one in arguments))
    assert code == 1
    assert reason in err
    assert list(direct.list_all()) == []
