"""The worker's object store, by obstore and by boto3 alone: nobody can tell which."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from obstore.exceptions import GenericError

from maskq.contract import FailureCode
from maskq.contract.ids import new_token
from maskq.contract.locations import S3Uri
from maskq_standalone.ports import free_port
from maskq_worker.errors import PermanentError, StoreAway, TransientError
from maskq_worker.storage.object_store import AlreadyThere, ObjectStore

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server

Connect = Callable[..., ObjectStore]
CLIENTS = ("obstore", "boto3")
KEYS = (
    "plain/key-1_x.png", "with space.png", "a//b", "a/./b", "a/../b", "./a", "ümlaut/日本.png",
    "100%.png", "a%20b", "a+b&c=d?e#f.png", "colon:semi;comma,at@", "~tilde'quote\"", "back\\slash",
    "star*", "trailing/",
)  # fmt: skip


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def connect() -> Iterator[Connect]:
    with ExitStack() as opened:

        def store(endpoint_url: str, client: Any = "obstore") -> ObjectStore:
            made = ObjectStore(endpoint_url, connections=2, client=client)
            opened.callback(made.close)
            return made

        yield store


@pytest.fixture
def store(
    client: Any, connect: Connect, s3_server: S3Server, environment: dict[str, str]
) -> ObjectStore:
    return connect(s3_server.endpoint_url, client)


@pytest.fixture
def place(s3_server: S3Server) -> S3Uri:
    """One that no other test has."""
    return S3Uri(s3_server.bucket, f"object-store/{new_token()}")


@pytest.mark.parametrize("key", KEYS)
def test_an_object_is_where_its_key_says(
    store: ObjectStore, s3_server: S3Server, place: S3Uri, key: str
) -> None:
    at, plain = S3Uri(place.bucket, f"{place.key}/{key}"), s3_server.client()
    store.put(at, b"body", "image/png")
    found = plain.get_object(Bucket=at.bucket, Key=at.key)
    assert (found["Body"].read(), found["ContentType"]) == (b"body", "image/png")
    read = store.get(at, max_bytes=4)
    assert (read.body, read.etag) == (b"body", found["ETag"])
    with pytest.raises(AlreadyThere):
        store.create(at, b"other", "image/png")


def test_an_object_is_created_once(store: ObjectStore, place: S3Uri) -> None:
    store.create(place, b"first", "application/json")
    with pytest.raises(AlreadyThere):
        store.create(place, b"second", "application/json")
    assert store.find(place, max_bytes=99) == b"first"


def test_a_state_of_an_object_is_asked_for(
    store: ObjectStore, s3_server: S3Server, place: S3Uri
) -> None:
    bucket = f"versions-{uuid.uuid4()}"
    plain = s3_server.client()
    plain.create_bucket(Bucket=bucket)
    plain.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    at = S3Uri(bucket, "image.png")
    old = plain.put_object(Bucket=bucket, Key=at.key, Body=b"old")
    new = plain.put_object(Bucket=bucket, Key=at.key, Body=b"new!")

    assert store.get(at, max_bytes=9).version_id == new["VersionId"]
    by_version = store.get(at, max_bytes=9, version_id=old["VersionId"])
    assert (by_version.body, by_version.version_id) == (b"old", old["VersionId"])
    assert store.get(at, max_bytes=9, etag=new["ETag"]).body == b"new!"
    with pytest.raises(PermanentError) as caught:
        store.get(at, max_bytes=9, etag=old["ETag"])
    assert caught.value.code is FailureCode.SOURCE_CHANGED


def test_what_is_too_large_is_not_read(store: ObjectStore, place: S3Uri) -> None:
    store.put(place, b"12345", "image/png")
    with pytest.raises(PermanentError, match="has 5 bytes; this worker takes 4") as caught:
        store.get(place, max_bytes=4)
    assert caught.value.code is FailureCode.IMAGE_TOO_LARGE


@pytest.mark.parametrize("bucket", ["", "no-such-bucket"])
def test_what_is_not_there_is_said(store: ObjectStore, place: S3Uri, bucket: str) -> None:
    missing = S3Uri(bucket or place.bucket, place.key)
    with pytest.raises(PermanentError, match="there is no") as caught:
        store.get(missing, max_bytes=4)
    assert caught.value.code is FailureCode.NOT_FOUND
    assert store.find(missing, max_bytes=99) is None


def test_a_refusal_is_said(
    client: Any, connect: Connect, s3_server: S3Server, place: S3Uri, environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "SOMEBODY")
    store = connect(s3_server.endpoint_url, client)
    for work in (
        lambda: store.get(place, max_bytes=4),
        lambda: store.put(place, b"body", "image/png"),
        lambda: store.create(place, b"body", "image/png"),
    ):
        with pytest.raises(StoreAway, match="credentials") as caught:
            work()
        assert caught.value.code is FailureCode.ACCESS_DENIED
        assert not caught.value.charged


def test_without_credentials_that_is_said(
    client: Any, connect: Connect, s3_server: S3Server, place: S3Uri,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreAway, match="no credentials"):
        connect(s3_server.endpoint_url, client).get(place, max_bytes=4)


def test_a_store_that_is_away_costs_the_job_nothing(
    client: Any, connect: Connect, place: S3Uri, environment: dict[str, str]
) -> None:
    store = connect(f"http://127.0.0.1:{free_port()}", client)
    with pytest.raises(TransientError) as caught:
        store.put(place, b"body", "image/png")
    assert caught.value.code is FailureCode.STORE_UNAVAILABLE
    assert not caught.value.charged


def test_where_only_boto3_gets_through_obstore_is_left_alone(
    connect: Connect, s3_server: S3Server, place: S3Uri, environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    asked = 0

    def refused(*_: object, **__: object) -> None:
        nonlocal asked
        asked += 1
        raise GenericError("certificate of somebody else")

    store = connect(s3_server.endpoint_url)
    store.put(place, b"body", "image/png")
    with caplog.at_level(logging.WARNING), monkeypatch.context() as broken:
        broken.setattr(obstore, "get", refused)
        for _ in range(9):
            assert store.get(place, max_bytes=4).body == b"body"
    assert asked == 5
    [record] = caplog.records
    assert "MASKQ_S3_CLIENT=boto3" in record.getMessage()


def test_obstore_does_what_it_can_do(
    connect: Connect,
    s3_server: S3Server,
    place: S3Uri,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the tests above would compare boto3 with itself."""
    store = connect(s3_server.endpoint_url)
    monkeypatch.setattr("maskq.s3.typed_errors", None)  # around every call of boto3
    store.create(place, b"body", "image/png")
    store.put(place, b"more", "image/png")
    assert store.get(place, max_bytes=4).body == b"more"
