"""What docs/http.md shows with curl is run as it stands, against a real gateway and a real worker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from demo_scenes.scenes import draw
from PIL import Image
from support.acl_stack import variables_of
from support.waiting import until

from maskq import Client
from maskq_standalone.ports import free_port
from maskq_standalone.stack import Stack

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
SIZE = (320, 240)


def blocks(kind: str) -> str:
    """The page's shell blocks of one kind, one after the other."""
    found = re.findall(rf"```sh {kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    return "\n".join(found)


@pytest.fixture
def gateway(direct: Client, stack: Stack, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "maskq", "gateway", "--port", str(port)]
    env = environment_of(direct) | variables_of(stack, "gateway", "publisher")
    with (tmp_path / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env=env)
    try:
        url = f"http://127.0.0.1:{port}"
        with urllib3.PoolManager(retries=False, timeout=5) as pool:
            until(lambda: is_ready(pool, url) or process.poll() is not None)
            assert process.poll() is None, (tmp_path / "gateway.log").read_text()
        yield url
        process.terminate()
        assert process.wait(30) == 0, (tmp_path / "gateway.log").read_text()
    finally:
        process.kill()
        process.wait()


def is_ready(pool: urllib3.PoolManager, url: str) -> bool:
    try:
        return pool.request("GET", f"{url}/readyz").status == 200
    except urllib3.exceptions.HTTPError:
        return False


def environment_of(client: Client) -> dict[str, str]:
    settings = client.settings
    return os.environ | {
        "MASKQ_TRANSPORT": "direct",  # `maskq keys create` needs Redis
        "MASKQ_REDIS_URL": settings.redis_url.get_secret_value(),
        "MASKQ_S3_ENDPOINT_URL": settings.s3_endpoint_url or "",
        "MASKQ_S3_BUCKET": settings.s3_bucket,
    }


def shell(text: str, tmp_path: Path, client: Client, **variables: str) -> str:
    tools = str(Path(sys.executable).parent)
    env = environment_of(client) | variables
    env["PATH"] = f"{tools}{os.pathsep}{env['PATH']}"
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    return ran.stdout


@pytest.fixture
def photo(tmp_path: Path) -> None:
    """photo.jpg where the page's lines are run, and the programs that they use."""
    draw(314, size=SIZE).image.save(tmp_path / "photo.jpg")
    assert shutil.which("curl")


def quickstart(gateway: str) -> str:
    return blocks("quickstart").replace("http://127.0.0.1:8090", gateway)


def without_jq(text: str) -> str:
    """jq is not on every machine that runs tests: a line of Python reads the same field."""
    read = "import json, sys; print(json.load(sys.stdin)[sys.argv[1]])"
    return re.sub(r"jq -r \.(\w+)", rf"{sys.executable} -c '{read}' \1", text)


@pytest.mark.usefixtures("photo")
def test_curl_alone_leads_from_a_key_to_a_mask(
    direct: Client, gateway: str, tmp_path: Path
) -> None:
    said = shell(without_jq(quickstart(gateway)), tmp_path, direct)
    assert said.split() == ["succeeded"]
    with Image.open(tmp_path / "mask.png") as mask, Image.open(tmp_path / "overlay.jpg") as overlay:
        assert mask.mode == "P"
        assert mask.size == overlay.size == SIZE


@pytest.mark.usefixtures("photo")
def test_every_line_of_the_page_works(direct: Client, gateway: str, tmp_path: Path) -> None:
    image = direct.submit(tmp_path / "photo.jpg")
    uri = image.refresh().request.image_uri
    waiting = direct.submit(uri, model=direct.models()[0].name, priority="low")
    # It has not started when it is to be canceled: Celery's eta keeps it.
    waiting.cancel()
    admin = direct.create_api_key(["admin"]).text
    lines = blocks("routes").replace(
        '-X POST "$URL/v1/jobs/$WAITING/cancel"', '"$URL/v1/jobs/$WAITING"'
    )
    text = without_jq(quickstart(gateway) + "\n" + lines)
    shell(
        text, tmp_path, direct,
        IMAGE_URI=uri, WAITING=waiting.id, ADMIN_KEY=admin,
    )  # fmt: skip


def test_the_events_of_the_page_arrive(direct: Client, gateway: str, tmp_path: Path) -> None:
    direct.segment(draw(314, size=SIZE).image)
    key = direct.create_api_key(["read"]).text
    text = f'AUTH="Authorization: Bearer {key}" URL={gateway}\n{blocks("events")} | head -n 5'
    text = text.replace("\n | head", " | head").replace("set -e", "")
    tools = ["bash", "-c", text]
    ran = subprocess.run(tools, capture_output=True, text=True, timeout=60, check=False)
    assert "event: maskq.job.succeeded" in ran.stdout, (ran.stdout, ran.stderr)
