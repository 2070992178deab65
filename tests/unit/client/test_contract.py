"""The wire: what is refused, what survives the way through JSON."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from typing import Any

import pytest
from pydantic import ValidationError

from maskq.contract import (
    TERMINAL,
    Event,
    FailureCode,
    JobFailure,
    JobRecord,
    JobResult,
    JobStatus,
    Output,
    Priority,
    SegmentRequest,
)
from maskq.contract.jobs import ClassStats
from maskq.contract.locations import S3Uri
from maskq.contract.options import MAX_METADATA_BYTES
from maskq.errors import InvalidRequest
from maskq.validation import sentence

IMAGE = "s3://photos/a.png"
FULL: dict[str, Any] = {
    "image_uri": "s3://photos/é/a b.png",
    "model": "org/name",
    "outputs": ["mask", "stats", "logits"],
    "priority": "high",
    "output_prefix": "s3://out/below",
    "metadata": {"order": "7", "ü": "\U0001f600"},
    "queue_ttl_s": 1.5,
    "run_timeout_s": 60.0,
    "max_attempts": 2,
    "output_name": "{dir}/{stem}.{output}",
    "output_replace": True,
    "output_error_file": True,
}


def request(**fields: Any) -> SegmentRequest:
    return SegmentRequest.model_validate({"image_uri": IMAGE, **fields})


def test_a_request_with_every_field_survives_the_wire() -> None:
    asked = SegmentRequest.model_validate(FULL)
    assert SegmentRequest.model_validate_json(asked.wire()) == asked


def test_the_wire_carries_only_what_was_asked_for() -> None:
    assert json.loads(request().wire()) == {"image_uri": IMAGE}
    assert SegmentRequest.model_validate_json(request().wire()) == request()


def test_defaults_ask_for_a_mask_at_normal_priority() -> None:
    asked = request()
    assert (asked.outputs, asked.priority) == ({Output.MASK}, Priority.NORMAL)
    assert (asked.model, asked.output_prefix, asked.metadata) == (None, None, {})


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"outptus": ["mask"]}, "outptus"),
        ({"webhook": "ftp://example.test"}, "webhook"),
        ({"webhook": "https://user:secret@example.test"}, "webhook"),
        ({"webhook_events": ["job.done"]}, "webhook_events.0"),
        ({"webhook_events": []}, "webhook_events"),
        ({"tenant": ""}, "tenant"),
        ({"tenant": "a b"}, "tenant"),
        ({"tenant": "t" * 101}, "tenant"),
        ({"model": ""}, "model"),
        ({"model": "m" * 201}, "model"),
        ({"outputs": []}, "outputs"),
        ({"outputs": ["masks"]}, "outputs.0"),
        ({"outputs": "mask"}, "outputs"),
        ({"priority": "urgent"}, "priority"),
        ({"output_prefix": "out"}, "output_prefix"),
        ({"metadata": {"n": 7}}, "metadata.n"),
        ({"metadata": {"half a character": "\ud800"}}, "metadata"),
        ({"metadata": ["a"]}, "metadata"),
        ({"queue_ttl_s": 0}, "queue_ttl_s"),
        ({"queue_ttl_s": -1}, "queue_ttl_s"),
        ({"queue_ttl_s": float("inf")}, "queue_ttl_s"),
        ({"queue_ttl_s": float("nan")}, "queue_ttl_s"),
        ({"run_timeout_s": float("inf")}, "run_timeout_s"),
        ({"run_timeout_s": 0}, "run_timeout_s"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": 101}, "max_attempts"),
        ({"max_attempts": 1.5}, "max_attempts"),
    ],
)
def test_a_mistake_is_refused_and_its_field_named(fields: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as refused:
        request(**fields)
    assert [".".join(map(str, one["loc"])) for one in refused.value.errors()] == [place]


def test_a_request_without_an_image_is_refused() -> None:
    with pytest.raises(ValidationError):
        SegmentRequest.model_validate({})


@pytest.mark.parametrize("spare", [0, 1])
def test_metadata_is_bounded_in_bytes(spare: int) -> None:
    around = len(json.dumps({"k": ""}))
    text = "é" * ((MAX_METADATA_BYTES - around) // 2) + "x" * ((MAX_METADATA_BYTES - around) % 2)
    if spare:
        with pytest.raises(ValidationError, match="at most 4096"):
            request(metadata={"k": text + "x"})
    else:
        assert request(metadata={"k": text}).metadata == {"k": text}


def test_a_request_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        request().model = "other"


def test_equal_requests_are_equal_on_the_wire_in_every_process() -> None:
    """A set's order follows the process's hash seed; fingerprints are taken of the JSON."""
    code = (
        "from maskq.contract import SegmentRequest\n"
        f"print(SegmentRequest(image_uri={IMAGE!r},"
        " outputs={'stats', 'logits', 'mask', 'overlay'}).model_dump_json())"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("uri", "bucket", "key"),
    [
        ("s3://photos/a.png", "photos", "a.png"),
        ("s3://my.bucket-1/deep/er/a.png", "my.bucket-1", "deep/er/a.png"),
        ("s3://photos//a.png", "photos", "/a.png"),
        ("s3://photos/a://b?c#d", "photos", "a://b?c#d"),
        ("s3://photos/ü b\n", "photos", "ü b\n"),
        ("s3://abc/" + "k" * 1024, "abc", "k" * 1024),
        ("s3://" + "b" * 63 + "/k", "b" * 63, "k"),
    ],
)
def test_a_place_is_read_and_written_back_unchanged(uri: str, bucket: str, key: str) -> None:
    place = S3Uri.parse(uri)
    assert (place.bucket, place.key, str(place)) == (bucket, key, uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "a.png",
        "/photos/a.png",
        "https://photos/a.png",
        "S3://photos/a.png",
        "s3:/photos/a.png",
        "s3:///a.png",
        "s3://photos",
        "s3://photos/",
        "s3://Photos/a.png",
        "s3://pho tos/a.png",
        "s3://ph/a.png",
        "s3://-photos/a.png",
        "s3://photos-/a.png",
        "s3://photos\n/a.png",
        "s3://user@photos/a.png",
        "s3://" + "b" * 64 + "/k",
        "s3://abc/" + "k" * 1025,
        "s3://abc/" + "é" * 513,
        "s3://photos/\ud800",
    ],
)
def test_what_is_no_place_in_s3_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        S3Uri.parse(uri)
    if uri.startswith("https://"):
        return  # a place elsewhere
    with pytest.raises(ValidationError):
        SegmentRequest(image_uri=uri)


@pytest.mark.parametrize(
    "fields",
    [
        {"image_uri": "https://user:pw@photos.example/a.png"},
        {"image_uri": "ftp://photos.example/a.png"},
        {"image_uri": "https:///a.png"},
        {"image_uri": "https://photos.example/a.png?" + "x" * 9000},
        {"image_uri": "https://photos.example/a.png", "image_etag": "abc"},
        {"image_uri": "s3://photos/a.png", "output_urls": {"mask": "s3://photos/mask.png"}},
        {"image_uri": "s3://photos/a.png", "output_urls": {"overlay": "https://out.example/o"}},
    ],
)
def test_urls_that_cannot_be_meant_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SegmentRequest(**fields)


def test_a_record_does_not_show_what_makes_a_url_work() -> None:
    whole = SegmentRequest(
        image_uri="https://photos.example/a.png?secret=1",
        output_urls={Output.MASK: "https://out.example/m?secret=2"},
    )
    kept = SegmentRequest.model_validate_json(whole.wire())
    assert "secret" not in whole.wire()
    assert kept.incomplete
    assert not whole.incomplete
    private = whole.private()
    assert private.image_uri == whole.image_uri
    assert private.output_urls == {"mask": "https://out.example/m?secret=2"}
    assert "secret" not in repr(private)


def test_an_output_prefix_may_be_a_whole_bucket() -> None:
    for uri in ("s3://out", "s3://out/"):
        assert request(output_prefix=uri).output_prefix == "s3://out/"


@pytest.mark.parametrize("prefix", ["s3://out", "s3://out/", "s3://out/a", "s3://out/a/"])
def test_places_join_with_one_slash(prefix: str) -> None:
    joined = S3Uri.parse(prefix, key_required=False) / "job" / "mask.png"
    assert str(joined) == f"{prefix.rstrip('/')}/job/mask.png"


def test_terminal_states_are_those_that_a_record_calls_ended() -> None:
    assert {status.value for status in TERMINAL} == {"succeeded", "failed", "canceled", "expired"}
    for status in JobStatus:
        assert record(status=status).ended == (status in TERMINAL)


def record(**fields: Any) -> JobRecord:
    known = {
        "id": "1",
        "status": "queued",
        "model": "demo",
        "priority": "normal",
        "request": request(),
        "max_attempts": 3,
        "created_ms": 1,
    }
    return JobRecord.model_validate(known | fields)


def test_a_public_record_is_plain_json_without_what_is_not_set() -> None:
    shown = record(error=JobFailure(code=FailureCode.CANCELED, message="m")).public()
    assert shown["error"] == {"code": "canceled", "message": "m"}
    assert "result" not in shown
    assert JobRecord.model_validate_json(json.dumps(shown)).public() == shown


def test_a_record_of_a_newer_release_can_be_read() -> None:
    assert record(something_new="1").id == "1"


def test_a_result_with_every_field_survives_the_wire() -> None:
    result = JobResult(
        width=4,
        height=3,
        model="demo",
        model_revision="abc",
        backend="cuda",
        outputs={Output.MASK: "s3://out/1/mask.png"},
        labels={0: "wall", 12: "person"},
        stats=[ClassStats(id=12, label="person", pixels=7, share=7 / 12)],
        source_etag='"e"',
        notes=["rotated upright"],
        timings_ms={"model": 1.25},
    )
    text = result.model_dump_json(exclude_defaults=True)
    assert JobResult.model_validate_json(text) == result


def test_an_event_keeps_what_it_does_not_know_and_hides_its_cursor() -> None:
    event = Event.model_validate_json(
        '{"specversion":"1.0","id":"1:queued:0","source":"maskq/maskq","type":"maskq.job.queued",'
        '"subject":"1","time":"2026-01-02T03:04:05.678Z","tracedepth":"3","data":{"a":1}}'
    ).model_copy(update={"cursor": "5-0"})
    assert event.time.microsecond == 678_000
    shown = event.model_dump(mode="json")
    assert shown["tracedepth"] == "3"
    assert "cursor" not in shown


def test_every_failure_code_has_a_name_of_its_own() -> None:
    assert all(code.name.lower() == code.value for code in FailureCode)


class _Watched:
    """A value that some frame holds: when it goes, so did the frame."""


def test_what_was_raised_for_an_invalid_request_is_freed_with_all_its_frames() -> None:
    """pydantic's error holds the validator's own exception where the garbage collector cannot look."""

    def refuse(watched: _Watched) -> InvalidRequest:
        try:
            SegmentRequest.model_validate({"image_uri": "ftp://elsewhere/image.jpg"})
        except ValidationError as error:
            try:
                raise InvalidRequest(sentence(error))
            except InvalidRequest as refused:
                raised = (
                    refused  # a cycle, as Celery's tracer has one: the frame holds what it raised
                )
        return raised

    watched = _Watched()
    alive = weakref.ref(watched)
    refuse(watched)
    del watched
    gc.collect()
    assert alive() is None
