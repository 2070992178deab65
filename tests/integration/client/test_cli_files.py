"""Images into `maskq submit` and files out of it and `maskq download`, over both transports."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result as Ran
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.transports import TRANSPORTS, connected
from support.working import working
from typer.testing import CliRunner

from maskq import Client
from maskq.cli import build


@pytest.fixture(params=TRANSPORTS)
def client(
    request: pytest.FixtureRequest, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    with connected(request.param, monkeypatch) as (made, _), working(bench):
        yield made


@pytest.fixture
def photo(tmp_path: Path) -> Callable[[str], str]:
    def photo(name: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (60, 40), "teal").save(path)
        return str(path)

    return photo


def maskq(*arguments: object, stdin: bytes = b"") -> Ran:
    return CliRunner().invoke(build(), [str(one) for one in arguments], input=stdin)


def files(ran: Ran, folder: Path) -> set[str]:
    """The names of the saved files, which are all that lies in the folder."""
    assert ran.exit_code == 0, (ran.output, ran.exception)
    printed = {Path(line).name for line in ran.stdout.splitlines()}
    assert printed == {path.name for path in folder.iterdir()}
    return printed


def test_submit_saves_the_outputs_of_a_file(
    client: Client, photo: Callable[[str], str], tmp_path: Path
) -> None:
    out = tmp_path / "masks"
    ran = maskq("submit", photo("photo.jpg"), "--out", out, "--output", "mask", "--output", "stats")
    assert files(ran, out) == {"photo.mask.png", "photo.stats.json"}
    with Image.open(out / "photo.mask.png") as mask:
        assert (mask.mode, mask.size) == ("P", (60, 40))


def test_images_of_one_name_are_told_apart(
    client: Client, photo: Callable[[str], str], tmp_path: Path
) -> None:
    out = tmp_path / "masks"
    images = [photo("a/cat.png"), photo("b/cat.png"), photo("dog.png")]
    ran = maskq("submit", *images, "--out", out, "--json")
    jobs = json.loads(ran.stdout)["jobs"]
    assert [Path(*job["files"]).name for job in jobs] == [
        f"cat.{jobs[0]['id']}.mask.png", f"cat.{jobs[1]['id']}.mask.png", "dog.mask.png",
    ]  # fmt: skip
    assert all(Path(*job["files"]).exists() for job in jobs)


def test_an_image_comes_by_stdin(
    client: Client, photo: Callable[[str], str], tmp_path: Path
) -> None:
    body = Path(photo("photo.png")).read_bytes()
    out = tmp_path / "masks"
    assert files(maskq("submit", "-", "--out", out, stdin=body), out) == {"stdin.mask.png"}
    ran = maskq("submit", "-", "-", stdin=body)
    assert "stdin holds one image" in str(ran.exception)


def test_download_saves_the_outputs_of_jobs_and_of_a_batch(
    client: Client, bench: Bench, photo: Callable[[str], str], tmp_path: Path
) -> None:
    image = Path(photo("a.png")).read_bytes()
    batch = client.submit_many([image, image])
    one, both = tmp_path / "one", tmp_path / "both"
    ran = maskq("download", batch.jobs[0].id, batch.jobs[0].id, "--out", one)
    assert files(ran, one) == {f"{batch.jobs[0].id}.mask.png"}
    ran = maskq("download", "--batch", batch.id, "--out", both)
    assert files(ran, both) == {f"{job.id}.mask.png" for job in batch.jobs}


def test_what_cannot_be_saved_is_an_error_and_stops_no_other(
    client: Client, photo: Callable[[str], str], tmp_path: Path
) -> None:
    out = tmp_path / "masks"
    out.mkdir()
    (out / "a.mask.png").write_text("other")
    images = [photo("a.png"), photo("b.png")]
    ran = maskq("submit", *images, "--out", out)
    assert ran.exit_code == 1
    assert ran.stdout.split() == [str(out / "b.mask.png")]
    assert "a.mask.png exists and has other content" in ran.stderr
    assert maskq("submit", *images, "--out", out, "--overwrite").exit_code == 0
    assert (out / "a.mask.png").read_bytes()[:4] == b"\x89PNG"


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_submitted(
    client: Client, photo: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for command in (["submit", photo("a.png")], ["download", "some-job"]):
        ran = maskq(*command, "--out", tmp_path / "file" / "masks")
        assert "cannot write to" in str(ran.exception)
    assert client.list().records == ()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["download", "--out", "."], "give job ids or --batch"),
        (["download", "a", "--batch", "b", "--out", "."], "give job ids or --batch"),
        (["download", "--batch", "nobody", "--out", "."], "there are no jobs of batch nobody"),
        (["submit", "s3://a-bucket/b.png", "--overwrite"], "--overwrite goes with --out"),
        (["submit", "-r", "s3://a-bucket/b/", "--out", "."], "maskq download --batch RUN_ID"),
    ],
)
def test_a_mistake_is_refused(client: Client, arguments: list[str], said: str) -> None:
    assert said in str(maskq(*arguments).exception)


def test_json_is_one_object_with_jobs_by_name(
    client: Client, photo: Callable[[str], str], tmp_path: Path
) -> None:
    def jobs(*arguments: object) -> list[dict[str, Any]]:
        ran = maskq(*arguments, "--json")
        document = json.loads(ran.stdout)
        assert set(document) <= {"jobs", "cursor"}
        return list(document["jobs"])

    (submitted,) = jobs("submit", photo("a.png"))
    (waited,) = jobs("wait", submitted["id"])
    assert waited["status"] == "succeeded"
    assert jobs("status", submitted["id"]) == jobs("list") == [waited]
    assert list(json.loads(maskq("models", "--json").stdout)) == ["models"]
    assert list(json.loads(maskq("webhooks", "list", "--json").stdout)) == ["deliveries"]
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "a"\nbucket = "photos"\nprefix = "in/"\n')
    assert list(json.loads(maskq("trigger", "check", rules, "--json").stdout)) == ["rules"]


def test_the_table_has_times_and_on_a_terminal_a_head(
    client: Client, photo: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = maskq("submit", photo("a.png")).stdout.strip()
    (line,) = maskq("wait", job_id).stdout.splitlines()
    assert line.split()[:2] == [job_id, "succeeded"]
    assert line.count(" s  ") == 2  # waited and took
    assert "60x40" in line

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    build()(["list"], prog_name="maskq", standalone_mode=False)
    assert terminal.getvalue().splitlines()[0].split() == [
        "JOB", "STATUS", "SUBMITTED", "(UTC)", "WAITED", "TOOK", "SIZE", "RESULT",
    ]  # fmt: skip
