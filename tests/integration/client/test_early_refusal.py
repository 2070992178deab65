"""What a client refuses before it submits a job, over both transports; what models tell of classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from integration.worker.test_pipeline import Bench
from support.transports import TRANSPORTS, connected

from maskq import Client, FailureCode, InvalidRequest
from maskq_worker.jobs.presence import Presence
from maskq_worker.model import ModelInfo

URL = "http://photos.internal/a.jpg?X-Amz-Signature=secret"


@pytest.fixture(params=TRANSPORTS)
def client(
    request: pytest.FixtureRequest, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    with connected(request.param, monkeypatch) as (made, _):
        yield made


def worker_lives(bench: Bench, owner: str = "host:1", **settings: Any) -> None:
    """A worker of three classes registers itself."""
    info = ModelInfo(
        name="smallest",
        revision="1",
        labels=("wall", "sky", "tree"),
        backend="cpu",
        device="cpu",
        dtype="float32",
        input_size=(64, 64),
        preprocessing={},
    )
    Presence(bench.ledger, info, owner, **settings).register()


def test_an_http_url_is_refused_if_no_live_worker_would_call_it(
    client: Client, bench: Bench
) -> None:
    worker_lives(bench)
    for options in ({}, {"model": "smallest"}):
        with pytest.raises(InvalidRequest, match="MASKQ_PRESIGNED_ALLOWED_HOSTS") as raised:
            client.submit(URL, **options)
        assert "http://photos.internal/a.jpg" in str(raised.value)
        assert "secret" not in str(raised.value)
    with pytest.raises(InvalidRequest, match="MASKQ_PRESIGNED_ALLOWED_HOSTS"):
        client.submit("s3://photos/a.jpg", output_urls={"mask": URL})
    with pytest.raises(InvalidRequest, match="MASKQ_PRESIGNED_ALLOWED_HOSTS"):
        client.submit_many(["s3://photos/a.jpg", URL])
    fine, refused = client.submit_each(["https://photos.example/a.jpg", URL])
    assert fine.job or refused.job
    (error,) = [one.error for one in (fine, refused) if one.error]
    assert "MASKQ_PRESIGNED_ALLOWED_HOSTS" in str(error)


def test_it_is_submitted_if_a_worker_may_call_it_or_none_lives(
    client: Client, bench: Bench
) -> None:
    assert client.submit(URL).id  # no worker lives: who comes decides
    worker_lives(bench)
    worker_lives(bench, "host:2", plain_http=True)
    assert client.submit(URL).id
    assert [one.error for one in client.submit_each([URL])] == [None]


@pytest.mark.parametrize("body", [b"", b"hello"])
def test_bytes_that_are_no_image_are_refused(client: Client, body: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        client.submit(body)
    assert raised.value.code is FailureCode.INVALID_IMAGE
    (submission,) = client.submit_each([body])
    assert submission.error is not None
    assert submission.error.code is FailureCode.INVALID_IMAGE
    assert client.list().records == ()


def test_models_tell_every_label_and_colour(client: Client, bench: Bench) -> None:
    assert client.models()[0].labels == ()  # no worker has registered
    worker_lives(bench)
    (model,) = client.models()
    assert model.labels == ("wall", "sky", "tree")
    assert len(set(model.palette)) == 3
    assert all(len(colour) == 7 and colour.startswith("#") for colour in model.palette)
    assert [worker.labels for worker in model.workers] == [3]
