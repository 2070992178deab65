"""The names of the files that a result is saved to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from maskq import JobRecord, Output
from maskq.client.results.names import file_name, stem_of, told_apart

JOB = "0199d3c0-0000-7000-8000-000000000000"


def record(image_uri: str) -> JobRecord:
    document = {
        "id": JOB, "status": "succeeded", "model": "m", "priority": "normal", "max_attempts": 3,
        "created_ms": 1, "request": {"image_uri": image_uri},
    }  # fmt: skip
    return JobRecord.model_validate(document)


@pytest.mark.parametrize(
    ("image_uri", "stem"),
    [
        ("s3://photos/2026/may/cat.jpg", "cat"),
        ("s3://photos/cat", "cat"),
        ("s3://photos/cat.tar.gz", "cat.tar"),
        ("s3://photos/Bärenfoto nr. 1.jpg", "Bärenfoto nr. 1"),
        (f"s3://maskq/maskq/{JOB}/input", JOB),
        ("https://photos.example/a/my%20cat.jpg?X-Amz-Signature=secret", "my cat"),
        ("https://photos.example/a%2F..%2Fb.jpg", "b"),
        ("https://photos.example/", JOB),
        ("s3://photos/..", JOB),
        ("s3://photos/a\\..\\b:c.jpg", "a_.._b_c"),
        ("s3://photos/line\nbreak\x1b[31m\u202egpj.jpg", "line_break_[31m_gpj"),
        ("s3://photos/.hidden", "hidden"),
        ("s3://photos/" + "ä" * 300 + ".jpg", "ä" * 75),
    ],
)
def test_the_stem_is_the_source_s_name(image_uri: str, stem: str) -> None:
    assert stem_of(record(image_uri)) == stem


@pytest.mark.parametrize(
    ("source", "stem"),
    [
        ("s3://photos/2026/cat.jpg?versionId=3.x", "cat"),
        ("holiday/cat.jpg", "cat"),
        ("holiday/input", "input"),
        ("https://photos.example/cat.jpg", "cat"),
    ],
)
def test_the_record_s_source_decides_if_it_has_one(source: str, stem: str) -> None:
    named = record(f"s3://maskq/maskq/{JOB}/input").model_dump() | {"source": source}
    assert stem_of(SimpleNamespace(**named | {"request": None})) == stem  # type: ignore[arg-type]


def test_every_output_has_a_name_of_its_own() -> None:
    names = {file_name("a", output, 7 if output is Output.BINARY else None) for output in Output}
    assert len(names) == len(Output)
    assert {"a.mask.png", "a.overlay.jpg", "a.binary.007.png"} < names
    assert file_name("a", Output.BINARY, 300) == "a.binary.300.png"


def test_jobs_of_one_name_are_told_apart_by_their_ids() -> None:
    assert told_apart({"1": "cat", "2": "Cat", "3": "dog"}) == {
        "1": "cat.1", "2": "Cat.2", "3": "dog",
    }  # fmt: skip
