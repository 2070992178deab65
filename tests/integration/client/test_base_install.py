"""The wheel with the needs of the client over HTTP alone, in an environment of its own."""

from __future__ import annotations

import subprocess
import venv
import zipfile
from collections.abc import Collection, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from integration.worker.test_pipeline import Bench
from packaging.requirements import Requirement
from PIL import Image
from support.http_api import serving

from maskq import Client
from maskq_gateway.asgi import application
from maskq_gateway.settings import GatewaySettings

ROOT = Path(__file__).parents[3]
DIRECT = {"redis", "boto3"}  # of `[direct]`, which the next version moves there

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


def needs(made: Distribution, leave_out: Collection[str] = ()) -> Iterator[Distribution]:
    """The distributions that one requires without an extra, and theirs."""
    for line in made.requires or ():
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name in leave_out:
            continue
        found = distribution(requirement.name)
        yield found
        yield from needs(found)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment's commands, made without a package index."""
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder / "env", symlinks=True)
    (packages,) = (folder / "env").glob("lib/python3*/site-packages")
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(packages)
    (metadata,) = packages.glob("maskq-*.dist-info")
    for found in needs(Distribution.at(metadata), DIRECT):
        for top in {file.parts[0] for file in found.files or () if ".." not in file.parts}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(found.locate_file(top))).resolve())
    return folder / "env" / "bin"


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
