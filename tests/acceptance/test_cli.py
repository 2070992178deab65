"""The command line as a shell sees it: exit codes, one JSON document on stdout, one line an error."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from demo_scenes.scenes import draw
from PIL import Image
from support.acl_stack import variables_of
from support.damaged import damaged
from support.stack_jobs import jpeg
from support.waiting import until

from maskq import Client, JobFailed, webhooks
from maskq.contract.locations import S3Uri
from maskq_standalone.commands import pictures
from maskq_standalone.stack import Stack

MASKQ = Path(sys.executable).with_name("maskq")


def maskq(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [str(MASKQ), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert not check or ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    return ran


def documents(*arguments: str, check: bool = True) -> list[dict[str, Any]]:
    """The jobs that a command prints."""
    found: list[dict[str, Any]] = json.loads(maskq(*arguments, "--json", check=check).stdout)[
        "jobs"
    ]
    return found


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(draw(8, size=(320, 240)).image))
    return str(path)


@pytest.mark.usefixtures("client")
class TestWithAStack:
    def test_submit_wait_status_and_list_agree(self, photo: str) -> None:
        submitted = maskq("submit", photo, "--metadata", "album=holiday")
        job_id = submitted.stdout.strip()
        (waited,) = documents("wait", job_id, "--timeout", "60")
        assert (waited["id"], waited["status"]) == (job_id, "succeeded")
        assert waited["request"]["metadata"] == {"album": "holiday"}
        assert documents("status", job_id) == [waited]
        assert waited in documents("list", "--limit", "50")
        assert waited in documents("list", "--limit", "1000", "--ended-since", "1h")
        assert "is not a valid time" in maskq("list", "--ended-since", "then", check=False).stderr

    def test_a_failed_job_is_exit_1_and_one_line(self) -> None:
        ran = maskq("submit", "s3://maskq/none.jpg", "--wait", "--json", check=False)
        assert ran.returncode == 1
        (job,) = json.loads(ran.stdout)["jobs"]
        assert job["error"]["code"] == "not_found"
        assert ran.stderr.count("\n") == 1

    def test_what_failed_is_listed_with_its_reason_retried_and_deleted(
        self, tmp_path: Path
    ) -> None:
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(damaged("no image"))
        (job,) = documents("submit", str(broken), "--tenant", "cli", "--wait", check=False)
        failed = job["id"]
        shown = maskq("list", "--tenant", "cli", "--code", "invalid_image").stdout
        assert failed in shown
        assert "invalid_image: " in shown

        (retried,) = documents("retry", failed)
        assert retried["retry_of"] == failed
        assert documents("retry", failed) == [retried]
        assert maskq("wait", retried["id"], check=False).returncode == 1

        by_code = maskq("retry", "--code", "invalid_image").stdout
        assert f"{retried['id']}  retry of {failed}" in by_code
        assert f"retry of {retried['id']}" in by_code
        maskq("delete", failed, retried["id"])
        assert failed not in maskq("list", "--tenant", "cli").stdout
        assert maskq("status", failed, check=False).returncode == 1
        assert "give job ids, --code or --all" in maskq("retry", check=False).stderr

    def test_a_job_that_cannot_be_retried_holds_up_no_other(
        self, client: Client, direct: Client
    ) -> None:
        # Given three failed jobs, of which the middle one's upload is gone
        old, middle, new = (client.submit(damaged("no image"), tenant="gone") for _ in range(3))
        for job in (old, middle, new):
            with pytest.raises(JobFailed):
                job.wait(timeout=60)
        direct.objects.delete(S3Uri.parse(middle.refresh().request.image_uri))
        # When
        ran = maskq("retry", new.id, middle.id, old.id, "--json", check=False)
        # Then the others are retried, and it is told
        assert ran.returncode == 1
        assert [pair["retry_of"] for pair in json.loads(ran.stdout)["jobs"]] == [new.id, old.id]
        assert f"job {middle.id}" in ran.stderr
        assert ran.stderr.count("\n") == 1

    def test_jobs_whose_time_is_up_are_told_too(self, photo: str) -> None:
        ran = maskq("submit", photo, photo, "--wait", "--timeout", "0", "--json", check=False)
        assert ran.returncode == 1
        assert len({job["id"] for job in json.loads(ran.stdout)["jobs"]}) == 2
        assert "Timeout" not in ran.stderr

    def test_many_images_are_a_batch(self, photo: str) -> None:
        done = documents("submit", photo, photo, photo, "--wait")
        assert [job["status"] for job in done] == ["succeeded"] * 3

    def test_events_come_one_a_line(self, photo: str) -> None:
        job_id = maskq("submit", photo, "--wait").stdout.split()[0]
        lines = maskq("events", "--since", "0", "--idle", "1", "--json").stdout.splitlines()
        mine = [event for event in map(json.loads, lines) if event["subject"] == job_id]
        assert [event["type"] for event in mine] == [
            "maskq.job.queued",
            "maskq.job.running",
            "maskq.job.succeeded",
        ]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("status", "nobody"), "there is no job nobody"),
            (("submit", "no/such/file.jpg"), "cannot read no/such/file.jpg"),
            (("submit", "s3://maskq/x", "--priority", "urgent"), "priority"),
            (("list", "--status", "done"), "'done' is not a valid job status"),
            (
                ("events", "--type", "failed"),
                "'failed' is not a valid event type; valid are: job.queued",
            ),
            (("submit", "x" * 5000), "cannot read x"),
        ],
    )
    def test_a_mistake_is_one_line_on_stderr(self, arguments: tuple[str, ...], said: str) -> None:
        ran = maskq(*arguments, check=False)
        assert ran.returncode == 1
        assert said in ran.stderr
        assert ran.stderr.count("\n") == 1


@pytest.mark.direct_only("a client over HTTP has no URLs of Redis and S3")
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MASKQ_REDIS_URL", "localhost:6379"),
        ("MASKQ_REDIS_URL", "redis://:Xq7/cd@127.0.0.1:6379/0"),
        ("MASKQ_S3_ENDPOINT_URL", "localhost:9000"),
        ("MASKQ_WEBHOOK_URL", "https://user:Xq7/cd@"),
    ],
)
def test_a_url_that_is_none_is_one_line_without_its_password(
    variable: str, value: str, photo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    ran = maskq("submit", photo, check=False)
    assert ran.returncode == 1
    assert variable in ran.stderr
    assert "Xq7" not in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_up_overwrites_no_settings_of_somebody_else_s(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("DATABASE_URL=postgres://\n")
    ran = maskq("up", "--env-file", str(env_file), check=False)
    assert ran.returncode == 1
    assert "name another" in ran.stderr
    assert env_file.read_text() == "DATABASE_URL=postgres://\n"


@pytest.mark.parametrize(
    ("secret", "port", "said"),
    [("no secret", "0", "whsec_"), (None, "{taken}", "cannot listen on port")],
)
def test_a_receiver_says_at_once_what_is_wrong(
    secret: str | None, port: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_WEBHOOK_SECRET", secret or webhooks.new_secret())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = port.format(taken=taken.getsockname()[1])
        ran = maskq("webhooks", "listen", "--port", number, check=False)
    assert ran.returncode == 1
    assert said in ran.stderr


def test_photographs_are_upright_and_named_apart(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "a.jpg" for folder in ("one", "two", "three")]
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    for path in paths:
        path.parent.mkdir()
        Image.new("RGB", (40, 30)).save(path, exif=exif)
    found = pictures.photographs(paths)
    assert [(one.name, one.image.size) for one in found] == [
        ("a", (30, 40)), ("a-2", (30, 40)), ("a-3", (30, 40)),
    ]  # fmt: skip


def test_up_writes_its_settings_when_ready_and_leaves_nothing_behind(
    tmp_path: Path, photo: str
) -> None:
    # Given a stack of one worker
    env_file = tmp_path / "maskq.env"
    up = subprocess.Popen(
        [str(MASKQ), "up", "--dir", str(tmp_path / "data"), "--env-file", str(env_file)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: env_file.exists() or up.poll() is not None, within_s=120)
        assert up.poll() is None

        # When a shell sources its file and submits
        settings = dict(line.split("=", 1) for line in env_file.read_text().split() if "=" in line)
        ran = subprocess.run(
            [str(MASKQ), "submit", photo, "--wait"],
            env={**os.environ, **{k: v.strip("'\"") for k, v in settings.items()}},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
    finally:
        # Then SIGTERM ends it with exit code 0, without its file
        up.send_signal(signal.SIGTERM)
        _, err = up.communicate(timeout=60)
    assert up.returncode == 0, err
    assert not env_file.exists()
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("/no/such/folder", "there is no folder"),
        ("nobody/nothing", "maskq weights pull nobody/nothing"),
    ],
)
def test_a_worker_that_cannot_load_says_what_to_do(
    model: str, said: str, environment_of_a_stack: dict[str, str]
) -> None:
    ran = subprocess.run(
        [str(MASKQ), "worker", "--model", model],
        env={**os.environ, **environment_of_a_stack},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 78
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.fixture
def environment_of_a_stack(stack: Stack) -> dict[str, str]:
    """Of a worker."""
    return stack.environment | variables_of(stack, "worker")
