"""What a client is made from: a gateway's URL, settings, a Redis URL, a boto3 session or client."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
from typing import Any

import boto3
import pytest
from botocore.config import Config

from maskq import AsyncClient, Client, InvalidRequest
from maskq.ledger import calls
from maskq.settings import Settings

KEY = "maskq_0123456789_" + "x" * 43
GATEWAY = "https://gateway.example"
# A valid PNG's first bytes: nothing here decodes it.
IMAGE = b"\x89PNG\r\n\x1a\n and more"


@pytest.fixture
def without_keys(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> boto3.Session:
    """A session with the credentials, which the environment does not have."""
    session = boto3.Session(
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name="eu-central-1",
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return session


def s3_client(session: boto3.Session, environment: dict[str, str]) -> Any:
    config = Config(s3={"addressing_style": "path"}, signature_version="s3v4")
    return session.client("s3", endpoint_url=environment["MASKQ_S3_ENDPOINT_URL"], config=config)


def test_without_arguments_the_environment_decides(environment: dict[str, str]) -> None:
    with Client() as client:
        assert client.key_prefix == environment["MASKQ_KEY_PREFIX"]
        assert client.list().records == ()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix", "sentinel", "REDIS"])
def test_a_redis_url_in_first_place_is_named(kind: type, scheme: str) -> None:
    with pytest.raises(InvalidRequest, match="give it as redis_url=") as raised:
        kind(f"{scheme}://user:secret@host/0")
    assert "secret" not in str(raised.value)


def test_a_redis_url_replaces_that_of_the_settings(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = environment["MASKQ_REDIS_URL"]
    monkeypatch.setenv("MASKQ_REDIS_URL", "redis://127.0.0.1:1/0")
    for client in (Client(redis_url=right), Client(Settings.load(), redis_url=right)):
        with client:
            assert client.list().records == ()
            assert client.settings.s3_bucket == environment["MASKQ_S3_BUCKET"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"redis_url": "redis://h/0"}, "redis_url goes with a client that reaches Redis"),
        ({"s3": boto3.Session()}, "s3 goes with a client that reaches Redis"),
    ],
)
def test_what_a_gateway_s_client_does_not_take_is_refused(
    arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        Client(GATEWAY, api_key=KEY, **arguments)


def test_something_else_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="got int"):
        Client(7)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=r"s3 is a str; give a boto3\.Session"):
        Client(redis_url="redis://h/0", s3="eu-central-1")  # type: ignore[arg-type]


def test_a_session_s_credentials_are_used(
    environment: dict[str, str], without_keys: boto3.Session
) -> None:
    with Client(s3=without_keys) as client:
        client.session.ledger.run(calls.register_model("m", {}))
        job = client.submit(IMAGE)
        assert job.refresh().status.value == "queued"

    async def submit() -> None:
        async with AsyncClient.from_env(s3=without_keys) as awaited:
            await awaited.submit(IMAGE)

    asyncio.run(submit())


def _submits(client: Client, answer: Any) -> None:
    try:
        client.submit(IMAGE)
        answer.put("submitted")
    except InvalidRequest as error:
        answer.put(str(error))


@pytest.mark.parametrize(("shared", "said"), [(True, "after a fork"), (False, "submitted")])
def test_a_client_is_shared_but_not_with_a_forked_process(
    environment: dict[str, str], without_keys: boto3.Session, shared: bool, said: str
) -> None:
    theirs = s3_client(without_keys, environment)
    client = Client(s3=theirs if shared else without_keys)
    client.session.ledger.run(calls.register_model("m", {}))
    client.submit(IMAGE)
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    child = context.Process(target=_submits, args=(client, answer))
    child.start()
    assert said in answer.get(timeout=30)
    child.join(timeout=30)
    client.close()
    assert theirs.list_buckets()["Buckets"]  # closing our client left theirs open


def test_a_client_with_a_session_is_not_pickled(without_keys: boto3.Session) -> None:
    with pytest.raises(InvalidRequest, match="cannot be pickled"):
        pickle.dumps(Client(s3=without_keys))
