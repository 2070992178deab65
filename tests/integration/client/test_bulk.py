"""Many images at once: submit_each, submit_many, `maskq submit --recursive`, against real servers."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.damaged import damaged
from support.transports import TRANSPORTS, connected
from support.waiting import until

from maskq import (
    AsyncClient,
    Client,
    FailureCode,
    IdempotencyConflict,
    InvalidRequest,
    JobStatus,
    QueueFull,
    StoreUnavailable,
    UnknownModel,
)
from maskq.cli import main
from maskq.contract import JobFailure, JobResult
from maskq.contract.ids import new_token
from maskq.contract.locations import S3Uri
from maskq.ledger import calls
from maskq.process.stop_signal import StopSignal
from maskq.settings import Settings
from maskq_standalone.servers.redis import RedisServer, find
from maskq_worker.model import Segmenter

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server

MASKQ = Path(sys.executable).with_name("maskq")
MODEL = "demo"
BROKEN = JobFailure(code=FailureCode.INVALID_IMAGE, message="not an image")


class Service:
    """A client, and by hand what a worker does."""

    def __init__(self, client: Client, direct: Client) -> None:
        self.client = client
        self.direct = direct
        self.prefix = direct.settings.key_prefix
        self.ledger = direct.session.ledger
        self.ledger.run(calls.register_model(MODEL, {}))

    def work(self, count: int = 10_000, fail: str = "no such name") -> list[str]:
        """End so many jobs that are queued now; those whose image's name has `fail` in it fail."""
        done = []
        while len(done) < count:
            token = new_token()
            call = calls.claim(MODEL, token, owner="x:1", lease_s=60)
            record = self.ledger.run(call).record
            if record is None:
                break
            if fail in record.request.image_uri:
                self.ledger.run(calls.fail(record.id, token, JobStatus.FAILED, BROKEN))
            else:
                result = JobResult(width=1, height=1, model=MODEL, outputs={"mask": "s3://o/m.png"})
                self.ledger.run(calls.succeed(record.id, token, result))
            done.append(record.request.image_uri)
        return done

    def images(self) -> Counter[str]:
        """Image → how many jobs it has."""
        names = list(self.ledger.redis.scan_iter(f"{self.prefix}:job:*", count=1000))
        with self.ledger.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hget(name, "request")
            return Counter(json.loads(request)["image_uri"] for request in pipe.execute())


@pytest.fixture(params=TRANSPORTS)
def service(
    environment: dict[str, str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    with connected(request.param, monkeypatch) as (client, direct):
        yield Service(client, direct)


def places(count: int, folder: str = "photos") -> list[str]:
    return [f"s3://{folder}/{number:05}.jpg" for number in range(count)]


# --- the client -------------------------------------------------------------------------------------


def test_each_image_comes_back_with_its_job_or_its_error(service: Service, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(damaged("an image"))
    missing = tmp_path / "missing.png"
    images: list[Any] = ["s3://photos/a.jpg", "s3://Photos/b.jpg", missing, damaged("bytes"), 5]
    images += [tmp_path / "good.png", io.BytesIO(damaged("file")), io.BytesIO(b"no image")]

    came = {id(image): (job, error) for image, job, error in service.client.submit_each(images)}

    jobs = [came[id(image)][0] for image in images]
    errors = [came[id(image)][1] for image in images]
    assert [bool(job) for job in jobs] == [True, False, False, True, False, True, True, False]
    assert [type(error).__name__ for error in errors[1:3]] == ["InvalidRequest"] * 2
    assert "cannot read" in str(errors[2])
    assert "is not an image" in str(errors[7])
    for job, text in ((jobs[5], "an image"), (jobs[6], "file")):
        uploaded = S3Uri.parse(job.refresh().request.image_uri)
        assert service.direct.objects.get(uploaded) == damaged(text)


@pytest.mark.parametrize("run_id", [None, "may"])
def test_a_file_object_is_read_once(service: Service, run_id: str | None) -> None:
    files = [io.BytesIO(damaged(str(number))) for number in range(3)]
    submissions = list(service.client.submit_each(files, run_id=run_id))
    assert [one.image for one in submissions] == files
    for number, one in enumerate(submissions):
        assert one.job
        uploaded = S3Uri.parse(one.job.refresh().request.image_uri)
        assert service.direct.objects.get(uploaded) == damaged(str(number))


def test_images_are_taken_as_they_are_needed(service: Service) -> None:
    taken: list[str] = []

    def source() -> Iterator[str]:
        for place in places(1000):
            taken.append(place)
            yield place

    each = service.client.submit_each(source(), chunk=10)
    assert next(each).job is not None
    assert len(taken) == 10
    assert len(list(each)) == 999
    assert service.images() == Counter(places(1000))


def test_under_one_run_id_an_image_is_submitted_once(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(damaged("an image"))
    images: list[Any] = [
        *places(3),
        path,
        damaged("bytes"),
        "https://host/x?id=1",
        "https://host/x?id=2",
    ]

    def ids() -> dict[Any, str | None]:
        each = service.client.submit_each(images, run_id="may", priority="low")
        return {image: job and job.id for image, job, _ in each}

    first, before = ids(), _objects(service)
    assert len({*first.values()} - {None}) == len(images)
    assert ids() == first
    assert _objects(service) == before, "what is there was not uploaded again"

    # What was changed meanwhile is another image, and said to be.
    path.write_bytes(damaged("another image"))
    (changed,) = service.client.submit_each([path], run_id="may", priority="low")
    assert isinstance(changed.error, IdempotencyConflict)
    assert _objects(service) == before
    (other,) = service.client.submit_each(places(1), run_id="may", priority="high")
    assert isinstance(other.error, IdempotencyConflict)
    with pytest.raises(InvalidRequest, match="run_id is empty"):
        list(service.client.submit_each(places(1), run_id=""))


def _objects(service: Service) -> set[str]:
    from maskq import s3

    place = S3Uri(service.direct.settings.s3_bucket, service.direct.settings.output_prefix)
    return {
        found.key
        for found in s3.list_under(s3.connect(service.direct.settings.s3_endpoint_url), place)
    }


def test_a_run_is_waited_for_by_its_name(service: Service) -> None:
    ids = [one.job.id for one in service.client.submit_each(places(30), run_id="r") if one.job]
    batch = service.client.batch("r", [*ids, ids[0]])
    assert len(batch) == 30
    service.work(10, fail="00003")
    first = list(islice(batch.as_completed(timeout=60), 10))
    assert {job.status for job in first} == {JobStatus.SUCCEEDED, JobStatus.FAILED}
    service.work()
    assert {job.id for job in batch.as_completed(timeout=60)} == set(ids)
    listed = service.client.list(batch_id="r", limit=100)
    assert {record.id for record in listed.records} == set(ids)


def test_the_async_client_submits_the_same(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(damaged("an image"))

    async def main() -> list[tuple[Any, str | None]]:
        async with AsyncClient.from_env() as client:
            each = client.submit_each([*places(20), path, "s3://"], run_id="r", chunk=7)
            came = [(image, job and job.id) async for image, job, _ in each]
            service.work()
            batch = client.batch("r", [job_id for _, job_id in came if job_id])
            ended = [job.id async for job in batch.as_completed(timeout=60)]
            assert len(ended) == 21
            return came

    came = dict(asyncio.run(main()))
    assert came.pop("s3://") is None
    again = service.client.submit_each([*places(20), path], run_id="r")
    assert {image: job and job.id for image, job, _ in again} == came


def test_a_model_nobody_serves_ends_the_run_at_once(service: Service) -> None:
    with pytest.raises(UnknownModel):
        list(service.client.submit_each(places(3), model="nobody"))
    with pytest.raises(InvalidRequest, match="priority"):
        list(service.client.submit_each(places(3), priority="urgent"))


# A gateway has read its limits when it started; test_steering.py fills a queue over HTTP.
@pytest.mark.parametrize("service", ["direct"], indirect=True)
def test_a_full_queue_is_waited_for_or_told(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_MAX_QUEUED", "5")
    with Client.from_env() as client:
        told = list(client.submit_each([*places(8), damaged("up")], queue_full_timeout=0.0))
        assert [type(one.error) for one in told] == [type(None)] * 5 + [QueueFull] * 4
        assert _objects(service) == set(), "the upload of a refused image is taken back"

        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(lambda: list(client.submit_each(places(20, "more"), run_id="r")))
            while not rest.done():
                service.work()
                time.sleep(0.02)
        assert all(one.job for one in rest.result())
    assert service.images() == Counter(places(5) + places(20, "more"))


def test_a_redis_at_its_memory_limit_is_a_full_queue(service: Service) -> None:
    redis = service.ledger.redis
    used = redis.info("memory")["used_memory"]
    redis.config_set("maxmemory", used + 500_000)
    try:
        each = service.client.submit_each(
            places(2000), queue_full_timeout=0.0, run_id="r", chunk=50
        )
        refused = [one.error for one in each]
        accepted = refused.count(None)
        assert 0 < accepted < 2000
        assert all(isinstance(error, QueueFull) for error in refused if error)
        if service.client is service.direct:  # the gateway does not name its Redis
            assert all("memory limit" in str(error) for error in refused if error)
        assert service.images().total() == accepted
    finally:
        redis.config_set("maxmemory", 0)
    assert all(one.job for one in service.client.submit_each(places(2000), run_id="r"))
    assert service.images() == Counter(places(2000))


def test_a_redis_that_is_restarted_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskq.client.bulk._OUTAGE_PAUSE_S", 0.1)
    server = RedisServer(tmp_path / "redis", password="pw", binary=find(pinned=True))
    server.start()
    restarted = threading.Thread(target=lambda: (time.sleep(2.5), server.restart(StopSignal())))

    def source() -> Iterator[str]:
        for number, place in enumerate(places(40)):
            if number == 20:
                server.kill()
                restarted.start()
            yield place

    try:
        with Client(Settings(redis_url=server.url, key_prefix="bulk")) as client:
            service = Service(client, client)
            came = list(client.submit_each(source(), run_id="r", chunk=10))
            assert all(one.job for one in came)
            assert service.images() == Counter(places(40))
    finally:
        restarted.join()
        server.stop()
    with (
        Client(Settings(redis_url=server.url, key_prefix="bulk")) as client,
        pytest.raises(StoreUnavailable),  # one that was never there is not waited for
    ):
        list(client.submit_each(places(1)))


def test_a_batch_is_in_order_and_all_or_none(service: Service) -> None:
    batch = service.client.submit_many(places(1200))
    records = [service.ledger.run(calls.get(batch.jobs[n].id)) for n in (0, 700)]
    assert [r and r.request.image_uri for r in records] == [places(1200)[0], places(1200)[700]]
    batch.cancel()

    bad = [*places(700, "other"), "s3://Other/bad.jpg", *places(10, "third")]
    with pytest.raises(InvalidRequest, match="bucket name"):
        service.client.submit_many(bad)
    with pytest.raises(UnknownModel):
        service.client.submit_many(places(2), model="nobody")
    assert service.client.list(status="queued").records == ()


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
    command = [str(MASKQ), "submit", "-r", "list.txt"]
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

    # And what it wrote last is lost, but for the half of a line
    if moment == "full":
        kept = manifest_lines(manifest)[:-300]
        manifest.write_bytes(b"".join(kept) + b'{"image": "s3://pho')
        monkeypatch.setenv("MASKQ_MAX_QUEUED", "0")

    # When the same command is run again, and once more
    ran = maskq("list.txt", "--json")
    again = maskq("list.txt", "--json")

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
    # Given more objects than a page holds, among them what is no image, and outputs
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
