"""Whatever is asked for, its caller gets a typed error with a code, and the next job is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from acceptance.test_nominal import png
from demo_scenes.scenes import draw
from PIL import Image
from support.damaged import damaged
from support.stack_jobs import jpeg

from maskq import Client, FailureCode, InvalidRequest, JobFailed, StoreUnavailable, UnknownModel

if TYPE_CHECKING:
    from maskq_standalone.stack import Stack


@pytest.fixture(scope="module")
def scene() -> Image.Image:
    return draw(77, size=(320, 240)).image


def header_of_a_huge_png() -> bytes:
    """60000 x 60000 px by its header, a few bytes by its size: must not be decoded to be refused."""
    body = bytearray(png(Image.new("L", (8, 8))))
    body[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    body[29:33] = zlib.crc32(bytes(body[12:29])).to_bytes(4, "big")
    return bytes(body)


@pytest.fixture
def served_after(client: Client, scene: Image.Image) -> Iterator[None]:
    """The worker goes on with the next job."""
    yield
    assert client.segment(scene, timeout=60).size == scene.size


BAD = {
    "damaged": (damaged("hello"), FailureCode.INVALID_IMAGE),
    "truncated": (jpeg(draw(77, size=(320, 240)).image)[:4000], FailureCode.INVALID_IMAGE),
    "too many pixels": (header_of_a_huge_png(), FailureCode.IMAGE_TOO_LARGE),
    "too many bytes": (b"\xff\xd8\xff" + bytes(70 * 2**20), FailureCode.IMAGE_TOO_LARGE),
    "missing key": ("s3://maskq/there/is/none.jpg", FailureCode.NOT_FOUND),
    "missing bucket": ("s3://no-such-bucket-here/x.jpg", FailureCode.NOT_FOUND),
}


AT_ONCE = pytest.mark.direct_only("the gateway's limit refuses it at submit (test_http_uploads.py)")


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=AT_ONCE if "bytes" in what else ()) for what in BAD]
)
@pytest.mark.usefixtures("served_after")
def test_a_bad_image_fails_its_job_alone(what: str, client: Client) -> None:
    source, code = BAD[what]
    job = client.submit(source)
    with pytest.raises(JobFailed) as raised:
        job.wait(timeout=60)
    assert raised.value.code == code
    assert raised.value.job is job
    record = job.refresh()
    assert record.attempt == 1  # nothing of this passes by itself
    assert record.result is None


@pytest.mark.parametrize("body", [b"hello, is this an image?", b""])
def test_what_is_no_image_is_refused_before_it_is_uploaded(body: bytes, client: Client) -> None:
    with pytest.raises(InvalidRequest) as raised:
        client.submit(body)
    assert raised.value.code is FailureCode.INVALID_IMAGE


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"outputs": {"masks"}}, "outputs"),
        ({"outputs": set()}, "outputs"),
        ({"priority": "urgent"}, "priority"),
        ({"colour": "red"}, "colour"),
        ({"queue_ttl": -1}, "queue_ttl"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"output_prefix": "elsewhere"}, "output_prefix"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_stored(
    options: dict[str, object], named: str, client: Client
) -> None:
    with pytest.raises(InvalidRequest, match=named):
        client.submit("s3://maskq/x.png", **options)


@pytest.mark.parametrize("source", [3.5, None, "there/is/no/such/file.jpg", "s3://bucket-alone"])
def test_what_is_no_image_source_is_refused(source: object, client: Client) -> None:
    with pytest.raises(InvalidRequest):
        client.submit(source)


def test_an_unknown_model_is_refused_with_those_known(client: Client) -> None:
    with pytest.raises(UnknownModel, match=r"'sam'.*demo"):
        client.submit("s3://maskq/x.png", model="sam")


@pytest.mark.usefixtures("served_after")
def test_messages_that_are_none_do_not_stop_the_worker(client: Client, stack: Stack) -> None:
    import redis

    with redis.Redis.from_url(stack.redis.url) as raw:
        for rubbish in ("not json", "{}", "[1, 2", '"text"', "17", "null", '{"body": 5}'):
            raw.lpush("maskq.demo.normal", rubbish)
            raw.lpush("maskq", rubbish)


@pytest.mark.direct_only("a client over HTTP has no credentials of S3")
def test_wrong_credentials_are_told_at_submit(
    client: Client, scene: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODY")
    with Client(client.settings) as stranger, pytest.raises(StoreUnavailable) as raised:
        stranger.submit(scene)
    assert raised.value.code is FailureCode.ACCESS_DENIED


@pytest.mark.direct_only("a client over HTTP has no URLs of Redis and S3")
def test_stores_that_cannot_be_reached_are_told_at_submit(
    client: Client, scene: Image.Image
) -> None:
    from maskq_standalone.ports import free_port

    nowhere = f"127.0.0.1:{free_port()}"
    no_redis = client.settings.model_copy(update={"redis_url": _secret(f"redis://{nowhere}/0")})
    with Client(no_redis) as lost, pytest.raises(StoreUnavailable, match=nowhere):
        lost.submit("s3://maskq/x.png")
    no_s3 = client.settings.model_copy(update={"s3_endpoint_url": f"http://{nowhere}"})
    with Client(no_s3) as lost, pytest.raises(StoreUnavailable, match="MASKQ_S3_ENDPOINT_URL"):
        lost.submit(scene)


def _secret(url: str) -> object:
    from pydantic import SecretStr

    return SecretStr(url)
