"""An object store behind TLS whose certificate a private CA signed: AWS_CA_BUNDLE, for every client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.tls import Authority, TlsProxy

from maskq import Client, InvalidRequest, StoreUnavailable, s3
from maskq.contract.ids import new_token
from maskq.contract.locations import S3Uri
from maskq_worker.errors import StoreAway
from maskq_worker.storage.object_store import ObjectStore
from maskq_worker.storage.obstore_client import ObstoreClient, ReadRequest, WriteRequest

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def front(
    s3_server: S3Server, environment: dict[str, str], authority: Authority
) -> Iterator[TlsProxy]:
    with TlsProxy(s3_server.port, authority.certificate("localhost")) as proxy:
        yield proxy
        assert proxy.seen.in_clear == []


@pytest.fixture
def endpoint(front: TlsProxy) -> str:
    return f"https://localhost:{front.port}"


@pytest.fixture
def place(s3_server: S3Server) -> S3Uri:
    return S3Uri(s3_server.bucket, f"tls/{new_token()}")


def _by_variable(bundle: Path, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("AWS_CA_BUNDLE", str(bundle))


def _by_profile(bundle: Path, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "aws-config"
    config.write_text(f"[default]\nca_bundle = {bundle}\n")
    patch.setenv("AWS_CONFIG_FILE", str(config))


@pytest.mark.parametrize("trust", [_by_variable, _by_profile])
def test_obstore_trusts_the_ca_that_boto3_trusts(
    trust: Any, authority: Authority, endpoint: str, place: S3Uri, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By itself: it does not leave the request to boto3."""
    trust(authority.file, tmp_path, monkeypatch)
    store = ObstoreClient(s3.connect(endpoint))
    store.put(WriteRequest(place, b"body", "text/plain", {}))
    found = store.get(ReadRequest(place, max_bytes=4), on_answer=lambda: None)
    assert found.body == b"body"


@pytest.mark.parametrize("client", ["obstore", "boto3"])
def test_a_worker_s_store_and_a_client_work(
    client: Any, authority: Authority, endpoint: str, place: S3Uri, redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.file))
    store = ObjectStore(endpoint, connections=2, client=client)
    store.create(place, b"body", "text/plain")
    assert store.get(place, max_bytes=4).body == b"body"
    store.close()
    with Client.from_env(redis_url=redis_url, s3_endpoint_url=endpoint) as caller:
        assert caller.session.objects.get(place) == b"body"


@pytest.mark.parametrize(
    ("client", "trusted"),
    [("obstore", "the system's"), ("obstore", "another CA"), ("boto3", "another CA")],
)
def test_a_certificate_of_a_stranger_is_refused(
    client: Any, trusted: str, endpoint: str, place: S3Uri, redis_url: str, tmp_path: Path,
    front: TlsProxy, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if trusted == "another CA":
        other = Authority(tmp_path / "other", "another CA")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(other.file))
    store = ObjectStore(endpoint, connections=2, client=client)
    with pytest.raises(StoreAway, match=r"certificate is not trusted.* AWS_CA_BUNDLE"):
        store.put(place, b"body", "text/plain")
    store.close()
    with (
        Client.from_env(redis_url=redis_url, s3_endpoint_url=endpoint) as caller,
        pytest.raises(StoreUnavailable, match=r"certificate is not trusted.* AWS_CA_BUNDLE"),
    ):
        caller.session.objects.get(place)


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_bundle_that_cannot_be_used_is_said_at_once(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for an outage, and waited for."""
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    with pytest.raises(InvalidRequest, match=f"^AWS_CA_BUNDLE: '{bundle}': "):
        ObjectStore("https://localhost:1", connections=2)
