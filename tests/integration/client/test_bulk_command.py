"""`maskq submit --recursive`: lists, folders and places in S3, and a run that goes on where it was."""

from __future__ import annotations

import io
import json
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.damaged import damaged
from support.waiting import until

from maskq import (
    Client,
    JobStatus,
)
from maskq.cli import main
from maskq.contract.locations import S3Uri
from maskq_worker.model import Segmenter

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server
from support import bulk
from support.bulk import BROKEN, MASKQ, Service, places

service = bulk.service

# --- the command ------------------------------------------------------------------------------------


@dataclass
class Ran:
    returncode: int
    stdout: str
    stderr: str


def maskq(*arguments: str, stdin: str = "") -> Ran:
    return command("--recursive", *arguments, stdin=stdin)


def command(*arguments: str, stdin: str = "") -> Ran:
    """`maskq submit`, without the second that a process of its own takes."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("sys.argv", ["maskq", "submit", *arguments])
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main()
    return Ran(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def summary(ran: Ran) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


def manifest_lines(manifest: Path) -> list[bytes]:
    return manifest.read_bytes().splitlines(keepends=True) if manifest.exists() else []


def lines(manifest: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest.read_text().splitlines()]


def list_of(images: list[str]) -> None:
    Path("list.txt").write_text("\n".join(images) + "\n")


@pytest.mark.parametrize(
    ("service", "moment"),
    [("direct", "full"), ("direct", "first line"), ("http", "first line")],
    indirect=["service"],
)
def test_a_run_that_is_killed_goes_on_where_it_was(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    # Given a run of 3000 images that is killed, in one case while it waits for room
    manifest = folder / "maskq-list.txt.jsonl"
    list_of(places(3000))
    if moment == "full":
        monkeypatch.setenv("MASKQ_MAX_QUEUED", "1200")
    service.direct.set_tenant("acme", max_queued=2900)  # so that it cannot end before
    command = [str(MASKQ), "submit", "-r", "list.txt", "--tenant", "acme"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        wanted = 1201 if moment == "full" else 2
        until(
            lambda: len(manifest_lines(manifest)) >= wanted or process.poll() is not None,
            every_s=0.005,
        )
        assert process.poll() is None
        process.kill()
    known = len(service.images())
    assert known == 1200 if moment == "full" else 0 < known < 3000
    service.direct.unset_tenant("acme")

    # And what it wrote last is lost, but for the half of a line
    if moment == "full":
        kept = manifest_lines(manifest)[:-300]
        manifest.write_bytes(b"".join(kept) + b'{"image": "s3://pho')
        monkeypatch.setenv("MASKQ_MAX_QUEUED", "0")

    # When the same command is run again, and once more
    ran = maskq("list.txt", "--json", "--tenant", "acme")
    again = maskq("list.txt", "--json", "--tenant", "acme")

    # Then every image has exactly one job
    assert (ran.returncode, ran.stderr) == (0, "")
    assert service.images() == Counter(places(3000))
    assert summary(ran)["images"] == summary(ran)["submitted"] + summary(ran)["had_a_job"] == 3000
    assert summary(again)["had_a_job"] == 3000
    entries = lines(manifest)
    assert Counter(entry["image"] for entry in entries[1:]) == Counter(places(3000))
    records = {
        record.id: record.request.image_uri
        for record in service.client.list(batch_id=entries[0]["run_id"], limit=1000).records
    }
    assert len(records) == 1000
    written = {entry["job_id"]: entry["image"] for entry in entries[1:]}
    assert records.items() <= written.items()


def test_below_a_place_in_s3_page_by_page(
    service: Service, s3_server: S3Server, folder: Path
) -> None:
    # Given more objects than a page holds; some of them are not images, some are outputs
    root, below = f"s3://{s3_server.bucket}", f"{service.prefix}-in"
    images = [f"{below}/{number % 7}/bild ü {number}.JPG" for number in range(1100)]
    put_all(s3_server, images)
    others = ["/notes.txt", "/sub.jpg/", "-2/x.jpg", "/masks/job/token/mask.png"]
    put_all(s3_server, [f"{below}{other}" for other in others])

    ran = maskq(f"{root}/{below}", "--json", "--output-prefix", f"{root}/{below}/masks/")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert summary(ran)["submitted"] == 1100
    assert service.images() == Counter(f"{root}/{key}" for key in images)
    (manifest,) = folder.glob("*.jsonl")
    assert str(manifest.name) == summary(ran)["manifest"]
    assert len(lines(manifest)) == 1101

    nowhere = maskq("s3://no-such-bucket-here/a/")
    assert (nowhere.returncode, nowhere.stdout) == (1, "")
    assert "no bucket of this name" in nowhere.stderr
    nothing = maskq(f"{root}/{below}/empty/")
    assert nothing.returncode == 1
    assert "found no image" in nothing.stderr
    inside = maskq(f"{root}/{service.prefix}/")
    assert "is where outputs are written" in inside.stderr
    assert [*folder.glob("*.jsonl")] == [manifest]


def put_all(server: S3Server, keys: list[str]) -> None:
    store = server.client()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: store.put_object(Bucket=server.bucket, Key=key, Body=b"x"), keys))


def test_one_bad_line_does_not_stop_the_others(service: Service, folder: Path) -> None:
    (folder / "here.png").write_bytes(damaged("an image"))
    url = "https://host.example/a.jpg?signature=SECRET"
    list_of(
        ["# mine", "", "s3://photos/a.jpg", "missing.png", "notes.txt", "here.png", "s3://Bad/b.jpg",
         "s3://photos/2024/", url, "s3://photos/a.jpg"],
    )  # fmt: skip

    ran = maskq("list.txt", "--tenant", "acme")

    assert ran.returncode == 1
    assert "4 invalid_request" in ran.stdout
    assert ran.stderr == "maskq: the outcome of each image is written to maskq-list.txt.jsonl\n"
    head, *entries = lines(folder / "maskq-list.txt.jsonl")
    assert head["options"] == {"tenant": "acme"}
    failed = {entry["image"]: entry["message"] for entry in entries if "code" in entry}
    assert failed.keys() == {"missing.png", "notes.txt", "s3://Bad/b.jpg", "s3://photos/2024/"}
    assert failed["missing.png"] == "cannot read missing.png: No such file or directory"
    assert len([entry for entry in entries if "job_id" in entry]) == 3
    assert "SECRET" not in (folder / "maskq-list.txt.jsonl").read_text()

    # What was missing is tried again; other options are another run
    (folder / "missing.png").write_bytes(damaged("found"))
    again = maskq("list.txt", "--tenant", "acme", "--json")
    assert (again.returncode, summary(again)["submitted"], summary(again)["failed"]) == (1, 1, 3)
    other = maskq("list.txt", "--tenant", "zeta")
    assert other.returncode == 1
    assert 'started with other options (tenant="acme")' in other.stderr
    assert service.images().total() == 4


def test_a_folder_is_uploaded_and_stdin_is_a_list(service: Service, folder: Path) -> None:
    names = [f"{number % 3}/{number}.png" for number in range(70)]
    for name in names:
        (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "photos" / name).write_bytes(damaged(name))

    ran = maskq("photos", "--json", "--manifest", "run.jsonl")

    assert ran.returncode == 0, ran.stderr
    uploaded = {service.direct.objects.get(S3Uri.parse(one)) for one in service.images()}
    assert uploaded == {damaged(name) for name in names}
    assert {entry["image"] for entry in lines(folder / "run.jsonl")[1:]} == {
        f"photos/{name}" for name in names
    }

    piped = maskq("-", stdin="photos/0/0.png\ns3://photos/a.jpg\n")
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout.startswith("2 images: 2 submitted, 0 already had a job\n")
    assert service.images().total() == 72


def test_wait_tells_each_end_and_retry_failed_tries_again(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_MAX_QUEUED", "40")  # so that it ends while it is submitted
    list_of(places(100))
    ran = beside_a_worker(service, fail="/0007")
    assert ran.returncode == 1
    assert summary(ran)["failures"] == {"invalid_image": 10}
    assert (summary(ran)["succeeded"], summary(ran)["not_ended"]) == (90, 0)
    ends = [entry for entry in lines(folder / "maskq-list.txt.jsonl") if "status" in entry]
    assert Counter(entry["status"] for entry in ends) == {"succeeded": 90, "failed": 10}
    assert [e["message"] for e in ends if "code" in e] == [BROKEN.message] * 10
    assert {str(e["outputs"]) for e in ends if "outputs" in e} == {"{'mask': 's3://o/m.png'}"}

    # When it is run again nothing happens; with --retry-failed what failed is tried again
    assert summary(beside_a_worker(service))["submitted"] == 0
    retried = beside_a_worker(service, "--retry-failed", fail="/00070")
    assert (retried.returncode, summary(retried)["submitted"]) == (1, 10)
    assert summary(retried)["failures"] == {"invalid_image": 1}
    last = beside_a_worker(service, "--retry-failed")
    assert (last.returncode, summary(last)["submitted"], summary(last)["succeeded"]) == (0, 1, 100)
    once, twice, thrice = (places(100)[number] for number in (0, 71, 70))
    jobs = service.images()
    assert (jobs[once], jobs[twice], jobs[thrice]) == (1, 2, 3)
    entries = lines(folder / "maskq-list.txt.jsonl")[1:]
    ids = [e["job_id"] for e in entries if e["image"] == thrice and "status" not in e]
    assert [service.client.get(one).refresh().retry_of for one in ids] == [None, *ids[:2]]


def beside_a_worker(service: Service, *arguments: str, fail: str = "no such name") -> Ran:
    """`maskq submit --recursive list.txt --wait` while jobs are worked on."""
    with ThreadPoolExecutor(1) as pool:
        ran = pool.submit(maskq, "list.txt", "--wait", "--json", *arguments)
        while not ran.done():
            service.work(fail=fail)
            time.sleep(0.02)
        return ran.result()


def test_a_wait_that_was_cut_off_finds_what_ended_meanwhile(service: Service, folder: Path) -> None:
    # Given jobs that nobody works on
    list_of(places(6))
    ran = maskq("list.txt", "--wait", "--timeout", "0.1")
    assert ran.returncode == 1
    assert "6 of 6 jobs have not ended, none for 0.1 s" in ran.stderr
    assert "0 succeeded, 0 failed, 6 have not ended" in ran.stdout

    # When some end, one is taken back, and one is deleted, without anybody looking
    service.work(3)
    jobs = [service.client.get(e["job_id"]) for e in lines(folder / "maskq-list.txt.jsonl")[1:]]
    queued = [
        job for job in jobs if job.status is JobStatus.QUEUED
    ]  # those of one ms have no order
    queued[0].cancel()
    queued[1].delete()
    ran = maskq("list.txt", "--wait", "--timeout", "0.1", "--json")

    # Then the next wait knows of them
    assert ran.returncode == 1
    assert summary(ran)["failures"] == {"canceled": 1, "not_found": 1}
    assert (summary(ran)["succeeded"], summary(ran)["not_ended"]) == (3, 1)

    # And what was somebody's wish is not retried, what is gone is
    ran = beside_a_worker(service, "--retry-failed")
    assert (summary(ran)["submitted"], summary(ran)["failures"]) == (1, {"canceled": 1})
    assert summary(ran)["succeeded"] == 5


def test_masks_of_a_folder(environment: dict[str, str], folder: Path, segmenter: Segmenter) -> None:
    """With a real pipeline and the smallest model."""
    bench = Bench(segmenter)
    (folder / "photos").mkdir()
    for number in range(4):
        Image.new("RGB", (40 + number, 30), "teal").save(folder / f"photos/{number}.png")
    (folder / "photos/broken.jpg").write_bytes(damaged("no image"))
    try:
        with ThreadPoolExecutor(1) as pool:
            ran = pool.submit(maskq, "photos", "--wait", "--json")
            while not ran.done():
                bench.pipeline.run("smallest")
                time.sleep(0.02)
    finally:
        bench.close()
    assert summary(ran.result())["failures"] == {"invalid_image": 1}
    ends = [e for e in lines(folder / "maskq-photos.jsonl") if e.get("status") == "succeeded"]
    assert {(e["width"], e["height"]) for e in ends} == {(40 + n, 30) for n in range(4)}
    with Client.from_env() as client:
        mask = client.objects.get(S3Uri.parse(ends[0]["outputs"]["mask"]))
    assert Image.open(io.BytesIO(mask)).size == (ends[0]["width"], 30)


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--recursive", "a", "--idempotency-key", "k"), "names one job"),
        (("a.jpg", "--retry-failed"), "go with --recursive"),
        (("a.jpg", "--manifest", "x"), "go with --recursive"),
        (("--recursive", "nowhere"), "nowhere does not exist"),
        (("--recursive", "s3://photos/", "--mode", "odd"), "mode"),
        (("s3://photos/2024/",), "--recursive submits the images in it"),
        ((".",), "--recursive submits the images in it"),
    ],
)
def test_a_mistake_is_one_line(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    ran = command(*arguments)
    assert ran.returncode == 1
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert [*folder.iterdir()] == []
