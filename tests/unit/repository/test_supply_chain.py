"""The lock files, the list of packages made of them, and the scans that `make check` runs."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
TOOLS = ROOT / "tools"
sys.path.insert(0, str(TOOLS))  # they are programs, not a package

import check_licences  # noqa: E402
import check_secrets  # noqa: E402
import locked  # noqa: E402
import sbom  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def required(extra: str | None) -> list[Requirement]:
    texts = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("worker.txt", (None, "worker", "gateway")),
        ("gateway.txt", (None, "gateway")),
        ("dev.txt", (None, "worker", "standalone", "dev")),
    ],
)
def test_a_lock_has_a_version_that_fits_for_each_requirement(
    file: str, extras: tuple[str | None, ...]
) -> None:
    """After a change of pyproject.toml: make lock."""
    pins = {pin.name: pin for pin in locked.read(file)}
    pins["torch"] = locked.read("torch-cpu.txt")[0]
    for requirement in (each for extra in extras for each in required(extra)):
        name = canonicalize_name(requirement.name)
        if name != "maskq":
            assert name in pins, f"{name} is not in deploy/lock/{file}: run `make lock`"
            locked_version = pins[name].version.partition("+")[0]
            assert requirement.specifier.contains(locked_version), f"{name}: run `make lock`"


def test_the_two_builds_of_torch_are_one_version_and_exclude_each_other() -> None:
    cpu, cuda = locked.read("torch-cpu.txt"), locked.read("torch-cuda.txt")
    (torch,) = (pin for pin in cuda if pin.name == "torch")
    assert [(pin.name, pin.version) for pin in cpu] == [("torch", f"{torch.version}+cpu")]
    for file in ("worker.txt", "dev.txt"):
        assert not [pin for pin in locked.read(file) if pin.name.startswith(("torch", "nvidia-"))]


def test_the_gateway_s_image_has_the_worker_s_versions_and_nothing_of_its_model() -> None:
    worker = {pin.name: pin for pin in locked.read("worker.txt")}
    gateway = {pin.name: pin for pin in locked.read("gateway.txt")}
    assert gateway.items() < worker.items()
    assert not gateway.keys() & {"celery", "kombu", "transformers", "numpy", "safetensors"}


def test_a_pin_without_a_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="celery"):
        locked.parse("celery==5.7.0\n")
    with pytest.raises(ValueError, match="celery"):
        locked.parse("celery>=5.7.0 \\\n    --hash=sha256:" + "0" * 64)


@pytest.mark.parametrize("build", sbom.LOCKS)
def test_the_sbom_names_what_an_image_installs(build: str) -> None:
    document = json.loads(sbom.document(build))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    components = {one["name"]: one for one in document["components"]}
    pins = [pin for lock in sbom.LOCKS[build] for pin in locked.read(lock)]
    assert components.keys() == {pin.name for pin in pins}
    for pin in pins:
        one = components[pin.name]
        assert one["purl"] == f"pkg:pypi/{pin.name}@{pin.version.replace('+', '%2B')}"
        hashes = one["externalReferences"][0]["hashes"]
        assert {found["content"] for found in hashes} == set(pin.hashes)
    assert ("nvidia-cublas" in components) == (build == "cuda")
    assert document == json.loads(sbom.document(build))  # the same each time


SECRETS = {
    "AWS access key": "AKIA" + "Q7XW2LMN4RST6UVY",
    "AWS secret key": "aws_secret_access_key = " + "a1B2c3D4e5" * 4,
    "private key": "-----BEGIN " + "RSA PRIVATE KEY-----\n" + "MIIEow" * 10,
    "GitHub token": "ghp" + "_" + "a1B2c3" * 6,
    "Hugging Face token": "hf" + "_" + "aBcDeF" * 6,
    "webhook secret": "whsec" + "_" + "a1B2c3D4" * 4,
    "password in a URL": "rediss://worker:" + "a1B2c3D4e5F6" + "@redis.internal:6379/0",
    "JSON web token": "eyJ"
    + "hbGciOiJIUzI1NiJ9"
    + ".eyJ"
    + "zdWIiOiIxMjM0NTY3ODkwIn0"
    + ".dozjgNryP4J3",
}


@pytest.mark.parametrize("form", SECRETS)
def test_a_secret_is_found_wherever_it_stands(form: str) -> None:
    for text in (SECRETS[form], f"x = '{SECRETS[form]}'  # why\n", f"\n\n{SECRETS[form]}\n"):
        assert form in {kind for _, kind, _ in check_secrets.found(text)}


@pytest.mark.parametrize(
    "text",
    [
        "redis://USER:PASSWORD@HOST:6379/0",
        "redis://{role}:{password}@127.0.0.1",
        "redis://:${MASKQ_REDIS_PASSWORD:-change-me}@redis",
        "https://user:secret@example.com",
        "-----BEGIN PRIVATE KEY-----",
        "AWS_SECRET_ACCESS_KEY: str = os.environ['AWS_SECRET_ACCESS_KEY']",
        "sha256:" + "0123456789abcdef" * 4,
    ],
)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert list(check_secrets.found(text)) == []


def test_every_form_has_an_example_or_is_a_provider_s_own() -> None:
    assert SECRETS.keys() <= check_secrets.FORMS.keys()


@pytest.mark.parametrize(
    ("said", "parts"),
    [("MPL-2.0 AND MIT", ["MPL-2.0", "MIT"]), ("(A OR B) AND C", ["A", "B", "C"])],
)
def test_an_expression_of_licences_is_taken_apart(said: str, parts: list[str]) -> None:
    assert check_licences._parts(said) == parts


@pytest.mark.parametrize("tool", ["check_licences.py", "check_secrets.py"])
def test_the_repository_passes(tool: str) -> None:
    said = subprocess.run(
        [sys.executable, str(TOOLS / tool)], capture_output=True, text=True, timeout=60, check=False
    )
    assert said.returncode == 0, said.stderr
