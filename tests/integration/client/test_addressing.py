"""MASKQ_S3_ADDRESSING: where a request names its bucket, for every client alike.

The names of virtual-hosted buckets do not resolve here, so requests go through a proxy that sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from support.s3_front import S3Front

from maskq import Client, InvalidRequest, s3
from maskq.contract.ids import new_id, new_token
from maskq.contract.locations import S3Uri
from maskq.contract.storage_layout import StorageLayout
from maskq.settings import Settings
from maskq_worker.storage import obstore_client
from maskq_worker.storage.object_store import ObjectStore
from maskq_worker.storage.obstore_client import ObstoreClient

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server

ENDPOINT = "http://s3.test"  # its buckets are hosts below it; the emulator understands both


@pytest.fixture
def proxy(
    s3_server: S3Server, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[S3Front]:
    with S3Front(s3_server.port) as front:
        monkeypatch.setenv("HTTP_PROXY", front.url)
        monkeypatch.setenv("http_proxy", front.url)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("MASKQ_S3_ENDPOINT_URL", ENDPOINT)
        yield front


@pytest.mark.parametrize("client", ["obstore", "boto3"])
@pytest.mark.parametrize(
    ("addressing", "in_host"), [("path", False), ("virtual", True), ("auto", False)]
)
def test_a_worker_s_requests_name_the_bucket_where_the_setting_says(
    proxy: S3Front, s3_server: S3Server, addressing: Any, in_host: bool, client: Any
) -> None:
    job = StorageLayout(S3Uri(s3_server.bucket, f"addressing/{new_token()}")).job(new_id())
    place = job.file(new_token(), "mask.png")
    store = ObjectStore(ENDPOINT, connections=2, client=client, addressing=addressing)
    store.create(place, b"body", "text/plain")
    store.put(place, b"more", "text/plain")
    assert store.get(place, max_bytes=4).body == b"more"
    assert store.find(place, max_bytes=4) == b"more"
    assert store.list_of(job.outputs, job) == [place]
    store.delete(place)
    store.close()
    host = f"{s3_server.bucket}.s3.test" if in_host else "s3.test"
    assert {seen for seen, _ in proxy.seen} == {host}
    assert all(
        request.split()[1].startswith(f"/{place.bucket}") != in_host for _, request in proxy.seen
    )


def test_a_client_s_requests_and_the_urls_it_signs_do_as_well(
    proxy: S3Front, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_S3_ADDRESSING", "virtual")
    place = S3Uri(s3_server.bucket, f"addressing/{new_token()}")
    with Client.from_env() as client:
        client.objects.put(place, b"body", "text/plain")
        assert client.objects.get(place) == b"body"
        url = client.objects._connection.get().client.generate_presigned_url(
            "get_object", Params={"Bucket": place.bucket, "Key": place.key}
        )
    assert {seen for seen, _ in proxy.seen} == {f"{s3_server.bucket}.s3.test"}
    assert url.startswith(f"http://{s3_server.bucket}.s3.test/addressing/")


def test_another_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_S3_ADDRESSING", "dns")
    with pytest.raises(InvalidRequest, match="MASKQ_S3_ADDRESSING"):
        Settings.load()


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("addressing", "host"),
    [
        ("path", "s3.eu-central-1.amazonaws.com"),
        ("virtual", "photos.s3.eu-central-1.amazonaws.com"),
        ("auto", "photos.s3.eu-central-1.amazonaws.com"),
    ],
)
def test_obstore_goes_where_boto3_goes_at_aws(
    addressing: Any, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    client = s3.connect(None, addressing=addressing)
    fast = ObstoreClient(client)._store_for(S3Uri("photos", "1.jpg"), obstore_client._SMALL)
    assert fast is not None
    assert fast.config["endpoint"] == f"https://{host}"
    asked = []

    def stop(request: Any, **_: object) -> None:
        asked.append(urlsplit(request.url).hostname)
        raise InterruptedError

    client.meta.events.register("before-send.s3", stop)
    with pytest.raises(InterruptedError):
        client.get_object(Bucket="photos", Key="1.jpg")
    assert asked == [host]
