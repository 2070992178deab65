"""How the source of a job is named, in records and in the metadata of objects."""

from __future__ import annotations

import hashlib
import subprocess
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote

import pytest
from support.damaged import damaged

from maskq import InvalidRequest, Output
from maskq.client.image_source import NamedImage, given_name, read_image, source_given
from maskq.client.requests import build
from maskq.contract.locations.source import (
    MAX_FILE_NAME,
    file_name,
    job_in,
    object_metadata,
    source_of,
    version_read,
)
from maskq.contract.outputs import sha256_of

JOB = "019b7c3e-5d2e-7a41-9c0b-3f6a1e8d2b57"


@pytest.mark.parametrize(
    ("image_uri", "version_id", "source"),
    [
        ("s3://photos/a b.jpg", None, "s3://photos/a b.jpg"),
        ("s3://photos/a.jpg", "3sL4k", "s3://photos/a.jpg?versionId=3sL4k"),
        ("s3://photos/a.jpg", "null", "s3://photos/a.jpg"),  # an object without versions
        ("https://host/a.jpg", None, "https://host/a.jpg"),
        ("https://host/a.jpg?X-Amz-Signature=secret", None, "https://host/a.jpg"),
        ("https://host/a.jpg?…", None, "https://host/a.jpg"),  # as a record shows it
        ("https://host/a.jpg#secret", None, "https://host/a.jpg"),
        ("https://user:secret@host:8443/a.jpg?secret", None, "https://host:8443/a.jpg"),
    ],
)
def test_a_source_names_the_place_and_no_secret(
    image_uri: str, version_id: str | None, source: str
) -> None:
    assert source_of(image_uri, version_id) == source


def test_a_url_with_a_password_is_not_submitted() -> None:
    with pytest.raises(InvalidRequest, match="user name or password"):
        build("https://user:secret@host/a.jpg", {})


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ("s3://photos/a.jpg", "s3://photos/a.jpg?versionId=7"),
        ("s3://photos/a.jpg?versionId=7", "s3://photos/a.jpg?versionId=7"),
        ("holiday/a.jpg", "holiday/a.jpg"),  # uploaded to s3://photos/a.jpg
    ],
)
def test_the_version_that_was_read_is_added_to_a_place_without_one(source: str, read: str) -> None:
    assert version_read(source, "s3://photos/a.jpg", "7") == read


def test_a_file_name_is_kept_as_it_was_given() -> None:
    assert given_name(Path("holiday/grün.jpg")) == "holiday/grün.jpg"
    assert given_name(NamedImage("a.jpg", b"")) == "a.jpg"
    assert given_name(b"bytes") == ""
    assert source_given(b"bytes") is None
    assert source_given("s3://photos/a.jpg", "7") == "s3://photos/a.jpg?versionId=7"
    assert read_image(NamedImage("A.JPG", damaged())) == (damaged(), "image/png")
    assert given_name(BytesIO(damaged())) == ""


def test_an_open_file_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(damaged())
    with (tmp_path / "a.png").open("rb") as file:
        assert given_name(file) == str(tmp_path / "a.png")


def test_a_file_name_that_cannot_be_stored_is_changed() -> None:
    assert file_name("a\udcff.jpg") == "a\\udcff.jpg"  # a byte that is not UTF-8
    assert file_name("\ud800") == "\\ud800"
    long = file_name("x" * MAX_FILE_NAME + "/a.jpg")
    assert len(long) == MAX_FILE_NAME
    assert long.endswith("x/a.jpg")


@pytest.mark.parametrize("source", ["s3://photos/a b+ü.jpg?versionId=7", "C:\\bilder\\ü.jpg\n"])
def test_metadata_is_ascii_that_says_the_same(source: str) -> None:
    metadata = object_metadata(JOB, source)
    assert metadata["maskq-source"].isascii()
    assert metadata["maskq-source"].isprintable()
    assert unquote(metadata["maskq-source"]) == source
    assert job_in(metadata) == JOB


def test_metadata_without_a_source_that_is_too_long() -> None:
    fits, too_long = "a" * 1500, "a" * 1501
    assert object_metadata(JOB, fits)["maskq-source"] == fits
    assert object_metadata(JOB, too_long) == {"maskq-job": JOB}
    assert object_metadata(JOB, "ü" * 251) == {"maskq-job": JOB}  # six bytes each
    assert object_metadata(JOB, None) == {"maskq-job": JOB}
    assert job_in({}) is None


def test_the_digest_of_a_folder_is_what_sha256sum_says(tmp_path: Path) -> None:
    files = {"binary/012.png": b"b", "binary/007.png": b"a", "binary/1000.png": b"c"}
    digests = {name: hashlib.sha256(body).hexdigest() for name, body in files.items()}
    for name, body in files.items():
        (tmp_path / name.removeprefix("binary/")).write_bytes(body)
    command = "sha256sum *.png | sha256sum"
    said = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env={"LC_ALL": "C", "PATH": "/bin:/usr/bin"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert sha256_of(Output.BINARY, digests) == said.split()[0]
    assert sha256_of(Output.MASK, {"mask.png": "1" * 64}) == "1" * 64
