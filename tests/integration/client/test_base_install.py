"""The wheel with the needs of the client over HTTP alone, in an environment of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.base_install import install
from support.http_api import serving

from maskq import Client
from maskq_gateway.asgi import application
from maskq_gateway.settings import GatewaySettings

PROGRAM = """
import importlib.util, sys
for name in ("redis", "boto3", "botocore", "celery", "torch", "fastapi"):
    assert importlib.util.find_spec(name) is None, name

from maskq import Client, InvalidRequest
with Client.from_env() as client:
    job = client.submit("photo.png", outputs={"mask", "stats"})
    print(job.id, flush=True)
    result = job.wait(timeout=60)
    result.mask().save("mask.png")
    assert [event.subject for event in client.events("0", idle=0.5)][-1] == job.id
try:
    Client.from_env(transport="direct", redis_url="redis://127.0.0.1:1")
except InvalidRequest as error:
    print(error)
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the environment's commands."""
    return install(tmp_path_factory.mktemp("alone"))


def test_submit_wait_and_save(
    alone: Path, environment: dict[str, str], bench: Bench, tmp_path: Path
) -> None:
    Image.new("RGB", (60, 40), "teal").save(tmp_path / "photo.png")
    with (
        Client.from_env() as direct,
        serving(application(GatewaySettings.load(), direct)) as api,
    ):
        env = {
            "PATH": "",
            "MASKQ_GATEWAY_URL": api.url,
            "MASKQ_API_KEY": direct.create_api_key(["submit", "read"]).text,
        }
        command = [alone / "python", "-P", "-W", "error", "-c", PROGRAM]
        with subprocess.Popen(
            command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout
            job_id = running.stdout.readline().strip()
            bench.pipeline.run("smallest")
            said = running.stdout.read()
        assert running.returncode == 0
        # A direct client says what to install
        assert "maskq[direct]" in said
        assert direct.get(job_id).refresh().request.outputs == {"mask", "stats"}
        with Image.open(tmp_path / "mask.png") as mask:
            assert mask.size == (60, 40)

        command = [alone / "python", "-P", "-m", "maskq", "status", job_id]
        ran = subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert "succeeded" in ran.stdout, ran.stderr
