"""What triggers see of an object beside its name: whose copy it is, and its content type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from maskq import Client
from maskq.contract.ids import new_id
from maskq.contract.locations import S3Uri
from maskq.errors import StoreUnavailable
from maskq.ledger import calls
from maskq_gateway.rules.rule import Rules
from maskq_gateway.rules.triggers import Skipped, Started, Triggers
from maskq_gateway.sources.object_created import ObjectCreated

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server


@pytest.fixture
def client(environment: dict[str, str]) -> Iterator[Client]:
    with Client.from_env() as connected:
        connected.session.ledger.run(calls.register_model("some", {}))
        yield connected


class Uploads:
    """Puts objects into a watched folder, and notifies a gateway of them."""

    def __init__(self, server: S3Server, prefix: str) -> None:
        self._client = server.client()
        self.bucket, self.prefix = server.bucket, f"{prefix}/in/"

    def event(self, name: str) -> ObjectCreated:
        return ObjectCreated(self.bucket, f"{self.prefix}{name}", etag="e", when=new_id())

    def put(self, name: str, content_type: str = "", **metadata: str) -> ObjectCreated:
        self._client.put_object(
            Bucket=self.bucket,
            Key=f"{self.prefix}{name}",
            Body=b"an image",
            Metadata={key.replace("_", "-"): value for key, value in metadata.items()},
            **({"ContentType": content_type} if content_type else {}),
        )
        return self.event(name)

    def triggers(self, client: Client, **fields: Any) -> Triggers:
        rule = {"name": "scans", "bucket": self.bucket, "prefix": self.prefix, **fields}
        return Triggers(client, Rules.of([rule], own_output=S3Uri("elsewhere", "maskq")))


@pytest.fixture
def uploads(s3_server: S3Server, key_prefix: str) -> Uploads:
    return Uploads(s3_server, key_prefix)


def reason(outcomes: list[Any]) -> str:
    (outcome,) = outcomes
    assert isinstance(outcome, Skipped), outcome
    return outcome.reason


def is_started(outcomes: list[Any]) -> bool:
    return [type(one) for one in outcomes] == [Started]


@pytest.mark.parametrize("fields", [{}, {"content_types": ["image/*"]}])
def test_an_object_whose_metadata_names_a_job_starts_nothing(
    client: Client, uploads: Uploads, fields: dict[str, Any]
) -> None:
    triggers = uploads.triggers(client, **fields)
    copy = uploads.put("a.mask.png", "image/png", maskq_job=new_id())
    assert reason(triggers.start([copy])).startswith("an output of maskq: job ")
    assert is_started(triggers.start([uploads.put("a.png", "image/png", other="x")]))


@pytest.mark.parametrize(
    ("content_types", "name", "content_type", "is_taken"),
    [
        (["image/*"], "scan", "image/jpeg", True),
        (["image/*"], "scan", "IMAGE/JPEG; x=1", True),
        (["image/*"], "scan.dat", "image/x-unknown", True),
        (["image/jpeg"], "scan", "image/jpeg", True),
        (["image/jpeg"], "scan", "image/png", False),
        (["image/*"], "scan", "application/octet-stream", False),
        (["image/*"], "scan", "", False),
        (["image/*"], "scan.jpg", "text/plain", True),  # the suffix is enough
        ([], "scan", "image/jpeg", False),
    ],
)
def test_a_rule_takes_objects_by_their_content_type(
    client: Client,
    uploads: Uploads,
    content_types: list[str],
    name: str,
    content_type: str,
    is_taken: bool,
) -> None:
    triggers = uploads.triggers(client, content_types=content_types)
    outcomes = triggers.start([uploads.put(name, content_type)])
    assert is_started(outcomes) is is_taken
    if not is_taken:
        assert reason(outcomes) == "no rule applies to it"


def test_an_object_that_is_gone_starts_a_job_by_its_suffix_only(
    client: Client, uploads: Uploads
) -> None:
    triggers = uploads.triggers(client, content_types=["image/*"])
    assert is_started(triggers.start([uploads.event("gone.jpg")]))
    assert reason(triggers.start([uploads.event("gone")])) == "no rule applies to it"


def test_without_the_store_only_those_wait_whose_content_type_decides(
    client: Client, uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def away(place: S3Uri, version_id: str | None) -> None:
        asked.append(place)
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(client.session.objects, "describe", away)
    triggers = uploads.triggers(client, content_types=["image/*"])
    with pytest.raises(StoreUnavailable):
        triggers.start([uploads.event("scan")])
    assert is_started(triggers.start([uploads.event("1.jpg")]))
    assert is_started(triggers.start([uploads.event("2.jpg")]))
    assert len(asked) == 2  # the store is left alone for a while
