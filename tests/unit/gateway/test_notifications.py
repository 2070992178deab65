"""Every form in which object stores tell of an upload, and what is none."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskq_gateway.sources.notifications import SOURCES, NotAnEvent, ObjectCreated, parse, read

ETAG = "d41d8cd98f00b204e9800998ecf8427e"


def s3(key: str = "in/1.jpg", name: str = "ObjectCreated:Put", **changed: Any) -> dict[str, Any]:
    described = {"key": key, "size": 7, "eTag": ETAG, "sequencer": "0055AED6DCD90281E5", **changed}
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": "2026-01-02T03:04:05.000Z",
        "eventName": name,
        "s3": {"bucket": {"name": "photos", "arn": "arn:aws:s3:::photos"}, "object": described},
    }
    return {"Records": [record]}


def event_bridge(key: str = "in/1.jpg", kind: str = "Object Created") -> dict[str, Any]:
    described = {"key": key, "size": 7, "etag": ETAG, "version-id": "v1", "sequencer": "00"}
    detail = {"version": "0", "bucket": {"name": "photos"}, "object": described}
    return {"version": "0", "source": "aws.s3", "detail-type": kind, "detail": detail}


def sns(message: str, kind: str = "Notification") -> dict[str, Any]:
    return {"Type": kind, "TopicArn": "arn:aws:sns:eu-west-1:1:uploads", "Message": message}


def seaweedfs(path: str = "/buckets/photos/in/1.jpg", **changed: Any) -> dict[str, Any]:
    md5 = base64.b64encode(bytes.fromhex(ETAG)).decode()
    attributes = {"file_size": 7, "mtime": 1767322800, "md5": md5}
    parent, _, name = path.rpartition("/")
    entry = {"name": name, "attributes": attributes}
    message = {"old_entry": None, "new_entry": entry, "new_parent_path": parent, **changed}
    return {"key": path, "event_type": "create", "message": message}


@pytest.mark.parametrize("event", [s3(), {"Event": "s3:TestEvent"}, event_bridge(), seaweedfs()])
def test_each_event_is_recognised_by_exactly_one_source(event: dict[str, Any]) -> None:
    assert [source.recognises(event) for source in SOURCES].count(True) == 1


def one(body: object) -> ObjectCreated:
    (found,) = read(body)
    return found


def test_aws_s3() -> None:
    assert one(s3()) == ObjectCreated(
        bucket="photos",
        key="in/1.jpg",
        etag=ETAG,
        sequencer="0055AED6DCD90281E5",
        size=7,
        when="2026-01-02T03:04:05.000Z",
    )
    assert one(s3(versionId="v1")).version_id == "v1"
    assert one(s3(versionId="null")).version_id is None
    assert one(s3(eTag=f'"{ETAG}"')).etag == ETAG


def test_event_bridge_does_not_encode_its_keys() -> None:
    found = one(event_bridge("in/a+b %2B.jpg"))
    assert found == ObjectCreated("photos", "in/a+b %2B.jpg", "v1", ETAG, "00", 7)


def test_minio_and_rustfs() -> None:
    record = s3("in%2Fgr%C3%BCn+1.jpg", "s3:ObjectCreated:CompleteMultipartUpload")
    body = {"EventName": "s3:ObjectCreated:Put", "Key": "photos/in/grün 1.jpg", **record}
    assert one(body).key == "in/grün 1.jpg"


@pytest.mark.parametrize("of", ["message", "message_data"])
def test_seaweedfs(of: str) -> None:
    event = seaweedfs("/buckets/photos/in/a+b %2B.jpg")
    event[of] = event.pop("message")
    expected = ObjectCreated("photos", "in/a+b %2B.jpg", etag=ETAG, size=7, when="1767322800")
    assert one(event) == expected


def test_seaweedfs_as_protobuf_spells_it() -> None:
    entry = {"name": "1.jpg", "isDirectory": False, "attributes": {"fileSize": "7", "mtime": "5"}}
    event = {"key": "/buckets/b/1.jpg", "event_type": "update", "message": {"newEntry": entry}}
    assert one(event) == ObjectCreated("b", "1.jpg", size=7, when="5")


def test_seaweedfs_tells_its_gateway_s_own_etag_before_the_content_s() -> None:
    event = seaweedfs()
    stored = base64.b64encode(f'"{ETAG}-3"'.encode()).decode()
    event["message"]["new_entry"]["extended"] = {"Seaweed-X-Amz-ETag": stored}
    assert one(event).etag == f"{ETAG}-3"


def test_seaweedfs_a_version_is_of_its_object() -> None:
    event = seaweedfs("/buckets/photos/in/1.jpg.versions/v_0af3")
    entry = next(event[name] for name in ("message", "message_data") if name in event)["new_entry"]
    notes = {"Seaweed-X-Amz-Version-Id": base64.b64encode(b"0af3").decode()}
    entry["extended"] = notes
    (created,) = read(event)
    assert (created.key, created.version_id) == ("in/1.jpg", "0af3")
    notes["Seaweed-X-Amz-Delete-Marker"] = base64.b64encode(b"true").decode()
    assert read(event) == ()


def test_a_record_may_be_wrapped() -> None:
    record = {"s3": {"bucket": {"name": "b"}, "object": {"key": "a+b.jpg"}}}
    wrapped = {"object_name": "x", "data": {"eventName": "s3:ObjectCreated:Put", **record}}
    (created,) = read({"Records": [wrapped]})
    assert (created.bucket, created.key) == ("b", "a b.jpg")


def test_seaweedfs_renamed_file_is_where_it_is_now() -> None:
    renamed = seaweedfs(old_entry={"name": "1.jpg"}, new_parent_path="/buckets/photos/done")
    assert one(renamed).key == "done/1.jpg"


@pytest.mark.parametrize(
    "event",
    [
        seaweedfs(new_entry=None, old_entry={"name": "1.jpg"}),
        seaweedfs(new_entry={"name": "in", "is_directory": True}),
        seaweedfs("/etc/1.jpg"),
        seaweedfs("/buckets/photos"),
        seaweedfs("/buckets/photos/.uploads/4f/0001.part"),
    ],
    ids=["deleted", "directory", "outside", "bucket", "part"],
)
def test_seaweedfs_tells_of_more_than_objects(event: dict[str, Any]) -> None:
    assert read(event) == ()


@pytest.mark.parametrize("inner", [s3(), event_bridge(), s3("%C3%BC.jpg")])
def test_an_sns_envelope_holds_either(inner: dict[str, Any]) -> None:
    assert read(sns(json.dumps(inner))) == read(inner) != ()


@pytest.mark.parametrize(
    ("encoded", "key"),
    [("a+b.jpg", "a b.jpg"), ("a%2Bb.jpg", "a+b.jpg"), ("%25.jpg", "%.jpg"), ("%E6%97%A5", "日")],
)
def test_keys_of_records_are_decoded(encoded: str, key: str) -> None:
    assert one(s3(encoded)).key == key


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=50))
def test_every_key_comes_through(key: str) -> None:
    assert one(s3(quote_plus(key, safe="/"))).key == key
    assert one(s3(quote(key))).key == key
    assert one(event_bridge(key)).key == key


def test_many_records_in_their_order_and_only_created_ones() -> None:
    names = [
        "ObjectCreated:Put",
        "ObjectRemoved:Delete",
        "s3:ObjectCreated:Copy",
        "ObjectTagging:Put",
    ]
    records = [s3(f"{n}.jpg", name)["Records"][0] for n, name in enumerate(names)]
    assert [found.key for found in read({"Records": records})] == ["0.jpg", "2.jpg"]


@pytest.mark.parametrize(
    "body",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"},
        sns('{"Service": "Amazon S3", "Event": "s3:TestEvent"}'),
        {"Records": []},
        s3(name="ObjectRemoved:DeleteMarkerCreated"),
        event_bridge(kind="Object Deleted"),
    ],
)
def test_what_is_nothing_to_do_is_no_error(body: object) -> None:
    assert read(body) == ()


@pytest.mark.parametrize("optional", ["size", "eTag", "sequencer"])
def test_what_a_store_leaves_out_is_not_known(optional: str) -> None:
    event = s3()
    del event["Records"][0]["s3"]["object"][optional]
    found = one(event)
    assert {"size": found.size, "eTag": found.etag, "sequencer": found.sequencer}[optional] is None


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (("s3",), r"Records\[0\]\.s3 is missing"),
        (("s3", "object"), r"Records\[0\]\.s3\.object is missing"),
        (("s3", "object", "key"), r"s3\.object\.key is missing"),
        (("s3", "bucket", "name"), r"s3\.bucket\.name is missing"),
        (("eventName",), r"Records\[0\]\.eventName is missing"),
    ],
)
def test_what_must_be_there_is_named(path: tuple[str, ...], named: str) -> None:
    event = copy.deepcopy(s3())
    inner = event["Records"][0]
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    with pytest.raises(NotAnEvent, match=named):
        read(event)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (["Records"], "the body is a list"),
        ({}, "neither Records"),
        ({"Records": {"0": 1}}, "not a list"),
        ({"Records": ["x"]}, r"Records\[0\] is a str"),
        (s3("%FF.jpg"), "not decode to valid UTF-8"),
        (s3("\ud800.jpg"), "not valid Unicode"),
        (s3(""), "key is empty"),
        ({**event_bridge(), "source": "my.app"}, "my.app"),
        ({**event_bridge(), "detail": None}, "detail is missing"),
        (sns("not json"), "envelope does not contain a notification"),
        (sns("{}", "SubscriptionConfirmation"), "is not about an object"),
        (sns(json.dumps(sns(json.dumps(s3())))), "neither Records"),
        ({"key": "/buckets/b/1.jpg", "event_type": "create"}, "message_data is missing"),
    ],
)
def test_what_is_no_event_says_why(body: object, said: str) -> None:
    with pytest.raises(NotAnEvent, match=said):
        read(body)


@pytest.mark.parametrize("body", [b"", b"hello", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json(body: bytes) -> None:
    with pytest.raises(NotAnEvent, match="not JSON"):
        parse(body)


def test_the_state_is_the_version_or_what_else_tells_writes_apart() -> None:
    assert one(s3(versionId="v1")).state == "v1"
    assert one(s3()).state == [ETAG, "0055AED6DCD90281E5"]
    assert one(seaweedfs()).state == [ETAG, "1767322800"]
