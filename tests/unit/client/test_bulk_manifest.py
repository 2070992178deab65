"""The manifest of a bulk submission, the sources it is made from, and what a terminal shows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.damaged import damaged

from maskq import FailureCode, InvalidRequest, JobRecord, JobStatus
from maskq.cli.bulk.manifest import Manifest, default_path
from maskq.cli.bulk.sources import InvalidEntry, images_in
from maskq.client.image_source import read_image
from maskq.contract import JobFailure, JobResult, Priority, SegmentRequest
from maskq.contract.image_formats import IMAGE_SUFFIXES
from maskq.contract.locations import S3Uri

OPTIONS = {"priority": "low"}


def record(job_id: str, status: JobStatus = JobStatus.SUCCEEDED, **more: Any) -> JobRecord:
    return JobRecord(
        id=job_id,
        status=status,
        model="demo",
        priority=Priority.NORMAL,
        request=SegmentRequest(image_uri="s3://photos/a.jpg"),
        max_attempts=3,
        created_ms=1,
        **more,
    )


def opened(path: Path, *, named: bool = True, **options: str) -> Manifest:
    return Manifest(path, ["list.txt"], options or OPTIONS, named=named)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A manifest with one image of each kind."""
    made = tmp_path / "run.jsonl"
    with opened(made) as manifest:
        manifest.begin()
        for name in ("good", "broken", "taken-back", "waits"):
            assert manifest.accepted(name, f"job-{name}")
        manifest.ended("job-good", record("job-good", result=JobResult(
            width=3, height=2, model="demo", outputs={"mask": "s3://o/mask.png"}
        )))  # fmt: skip
        why = JobFailure(code=FailureCode.INVALID_IMAGE, message="not an image")
        manifest.ended("job-broken", record("job-broken", JobStatus.FAILED, error=why))
        manifest.ended("job-taken-back", record("job-taken-back", JobStatus.CANCELED))
        manifest.refused("missing", InvalidRequest("cannot read missing"))
    return made


def test_what_is_written_is_read_again(path: Path) -> None:
    with opened(path) as again:
        assert again.open == {"job-waits": "waits"}
        assert again.failures == {
            "broken": "invalid_image",
            "taken-back": "canceled",
            "missing": "invalid_request",
        }
        assert again.succeeded == 1
        assert again.codes() == {"invalid_image": 1, "canceled": 1, "invalid_request": 1}
        assert not again.accepted("good", "job-good")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[5]["outputs"] == {"mask": "s3://o/mask.png"}
    assert [line["image"] for line in lines if "code" in line] == [
        "broken",
        "taken-back",
        "missing",
    ]


def test_what_has_a_job_is_settled_and_what_failed_only_until_it_is_retried(path: Path) -> None:
    with opened(path) as manifest:
        settled = {
            retry: {
                name
                for name in ("good", "broken", "taken-back", "waits", "missing", "new")
                if manifest.is_settled(name, retry)
            }
            for retry in (False, True)
        }
        assert settled[False] == {"good", "broken", "taken-back", "waits"}
        assert settled[True] == {"good", "taken-back", "waits"}
        assert manifest.failed_job("broken") == "job-broken"
        manifest.accepted("broken", "job-2")
        assert manifest.failed_job("broken") == ""
        assert manifest.open["job-2"] == "broken"
        assert "broken" not in manifest.failures


@pytest.mark.parametrize("torn", [b'{"image": "half', b'{"image": "whole", "job_id": "x"}'])
def test_a_line_torn_by_a_crash_never_was(path: Path, torn: bytes) -> None:
    before = path.read_bytes()
    path.write_bytes(before + torn)
    with opened(path) as manifest:
        assert len(manifest.jobs) == 4
        manifest.accepted("next", "job-next")
    line = b'{"image": "next", "source": "next", "job_id": "job-next"}\n'
    assert path.read_bytes() == before + line


def test_a_first_line_that_is_torn_is_begun_anew(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])
    with opened(path) as manifest:
        assert not manifest.begun
        manifest.begin()
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "content", [b"hello\n", b"hello", b'{"a": 1}\n', b"[]\n", b"\xff\n", b'{"maskq_manifest": 2}\n']
)
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    other = tmp_path / "other"
    other.write_bytes(content)
    with pytest.raises(InvalidRequest, match="other"):
        opened(other)
    assert other.read_bytes() == content


def test_a_line_that_is_damaged_is_named(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], "oops\n", *lines[3:]]))
    with pytest.raises(InvalidRequest, match="line 4 of"):
        opened(path)


def test_other_options_are_refused_by_name(path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r'other options \(no model, priority="low"\)'):
        opened(path, model="x")
    with opened(path) as same:
        assert same.run_id == json.loads(path.read_text().splitlines()[0])["run_id"]


def test_another_source_is_refused_unless_the_file_was_named(path: Path) -> None:
    with Manifest(path, ["other.txt"], OPTIONS, named=True) as manifest:
        assert manifest.jobs
    with pytest.raises(InvalidRequest, match=r"started for list\.txt"):
        Manifest(path, ["other.txt"], OPTIONS, named=False)


def test_one_process_at_a_time_writes_it(path: Path) -> None:
    with opened(path), pytest.raises(InvalidRequest, match="another process"):
        opened(path)


def test_a_run_that_found_nothing_leaves_no_file(tmp_path: Path) -> None:
    with opened(tmp_path / "none.jsonl") as manifest:
        assert not manifest.begun
    assert not (tmp_path / "none.jsonl").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot write .*none/run\.jsonl"):
        opened(tmp_path / "none" / "run.jsonl")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["s3://photos/2024/may/"], "maskq-photos-2024-may.jsonl"),
        (["/data/my photos/"], "maskq-my-photos.jsonl"),
        (["list.txt", "more.txt"], "maskq-list.txt-and-1-more.jsonl"),
        (["https://host/a.jpg?signature=secret"], "maskq-host-a.jpg.jsonl"),
    ],
)
def test_a_manifest_is_named_after_its_source(given: list[str], name: str) -> None:
    assert default_path(given) == Path(name)
    assert default_path(["-"]).name.startswith("maskq-2")


# --- sources ----------------------------------------------------------------------------------------


def found(*given: str, outputs: list[S3Uri] | None = None) -> list[str]:
    return [
        f"bad {one.name}: {one.error}" if isinstance(one, InvalidEntry) else one
        for one in images_in(given, None, outputs or [])
    ]


def test_a_folder_gives_its_images_in_order(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.webp", "a.png", "notes.txt", ".thumbs/x.jpg", "b/._1.jpg", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [str(Path(one).relative_to(tmp_path)) for one in found(str(tmp_path))]
    assert names == ["a.png", "b/1.webp", "b/2.JPG"]


def test_a_folder_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "sub").mkdir()
    images = images_in([str(tmp_path)], None, [])
    next(images)
    (tmp_path / "sub").rmdir()
    (bad,) = images
    assert isinstance(bad, InvalidEntry)
    assert bad.name == str(tmp_path / "sub")
    assert "cannot read folder" in str(bad.error)


def test_a_list_says_line_by_line(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_bytes(
        b"\xef\xbb\xbfs3://photos/a.jpg\r\n\n# s3://photos/no.jpg\n  b c.png  \nnotes.txt\n"
        b"s3://photos/2024/\nhttps://host/x?id=1\ns3://photos/without\nl\xe9.jpg"
    )
    good = [one for one in found(str(listed)) if not one.startswith("bad")]
    bad = [one for one in found(str(listed)) if one.startswith("bad")]
    assert good == [
        "s3://photos/a.jpg",
        "b c.png",
        "https://host/x?id=1",
        "s3://photos/without",
        os.fsdecode(b"l\xe9.jpg"),
    ]
    assert [one.split(":")[0] for one in bad] == ["bad notes.txt", "bad s3"]


def test_what_is_no_list_and_no_image_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    archive.write_bytes(b"PK\x03\x04\0\0")
    with pytest.raises(InvalidRequest, match="not a list of images"):
        found(str(archive))
    with pytest.raises(InvalidRequest, match="nowhere does not exist"):
        found("s3://photos/a.jpg", "nowhere")
    with pytest.raises(InvalidRequest, match="not a valid bucket"):
        found("s3://Photos/")


def test_single_images_are_sources_too(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    given = ["s3://photos/a.jpg", "https://host/b", str(tmp_path / "a.png")]
    assert found(*given) == given


@pytest.mark.parametrize("place", ["s3://maskq/maskq/", "s3://maskq/maskq/old", "s3://out"])
def test_where_outputs_go_no_images_are_looked_for(place: str) -> None:
    with pytest.raises(InvalidRequest, match="is where outputs are written"):
        found(place, outputs=[S3Uri("maskq", "maskq"), S3Uri("out", "")])


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_a_file_with_the_name_of_an_image_is_found_and_uploaded_as_one(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"A{suffix.upper()}"
    path.write_bytes(damaged())
    assert found(str(tmp_path)) == [str(path)]
    body, kind = read_image(path)
    assert body == damaged()
    assert kind == "image/png"  # by its first bytes, not by its name
