"""Text of others: URLs, headers, settings, lines of a run's manifest, what callers look for."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from fuzz.harness import JSON, altered, bounded, fuzzed
from hypothesis import example
from hypothesis import strategies as st

from maskq import Client, safe_http
from maskq.cli.bulk.manifest import Manifest
from maskq.contract.locations import S3Uri, http_url
from maskq.errors import InvalidRequest, MaskqError
from maskq.ledger import RedisUrl
from maskq.settings import Settings
from maskq_gateway.access import Tokens
from maskq_gateway.settings import GatewaySettings
from maskq_standalone.servers.redis import RedisServer
from maskq_worker.broker.envelope import milliseconds
from maskq_worker.settings import WorkerSettings
from maskq_worker.webhooks import WebhookSettings, retry_after_s

SECRET = "Xq7cdSECRET"
ANY = st.text(st.characters(exclude_categories=()), max_size=60)
UNENCODED = st.text(st.characters(exclude_categories=["Z", "C"]), max_size=6)
HOST = st.sampled_from(
    [
        "h.example",
        "127.0.0.1",
        "[::1]",
        "0x7f.1",
        "017700000001",
        "[::ffff:10.0.0.1]",
        "h..",
        "é.example",
        "xn--.com",
        "1.2.3.4.5",
        "[fe80::1%25eth0]",
        "a_b",
        "h:99999",
        "h:",
        "h:-1",
        "h:٣",
        "",
        "[",
        "h]",
    ]
)


@st.composite
def urls(draw: st.DrawFn, schemes: list[str]) -> str:
    """With a password that holds SECRET, in every way that people write one."""
    password = draw(UNENCODED) + SECRET + draw(UNENCODED)
    user = draw(st.sampled_from(["", "u", ":", "a/b", "a@b", "u%40"]))
    query = draw(
        st.sampled_from(["", "?db=1", "?a=b", "?ssl_cert_reqs=x", "?socket_timeout=nan", "?db=x"])
    )
    path = draw(st.sampled_from(["", "/", "/0", "/x", "/%zz", "//", "/0/1"]))
    return f"{draw(st.sampled_from(schemes))}://{user}:{password}@{draw(HOST)}{path}{query}"


# --- URLs ---------------------------------------------------------------------------------------------


@fuzzed(urls(["redis", "rediss", "unix", "sentinel", "redis+socket", "REDIS"]) | ANY, examples=150)
@example("redis://u:1/Xq7cdSECRET@h/0")
@example("redis://:a?Xq7cdSECRET@h/0")
@example("redis://:a#Xq7cdSECRET@h/0")
@example("redis://h/0?password=Xq7cdSECRET&password=b")
@example("redis://h/0?pasword=Xq7cdSECRET")
@example("rediss://h/0?ssl_password=Xq7cdSECRET&ssl_cert_reqs=x")
def test_a_url_of_redis_is_read_or_refused_without_its_password(url: str) -> None:
    with bounded(len(url)):
        try:
            parsed = RedisUrl.parse(url)
        except InvalidRequest as error:
            said = str(error)
        else:
            said = f"{parsed.place} {parsed!r}"
    assert SECRET not in said


@fuzzed(urls(["http", "https"]) | ANY)
def test_a_url_of_the_web_is_taken_or_refused_without_its_password(url: str) -> None:
    try:
        http_url(url)
    except ValueError as error:
        said = str(error)
        assert SECRET not in said


@pytest.fixture
def _no_name_server() -> Iterator[None]:
    ask = socket.getaddrinfo

    def numeric(*place: Any, **options: Any) -> Any:
        return ask(*place, **options, flags=socket.AI_NUMERICHOST)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", numeric)
        yield


@fuzzed(
    urls(["http", "https", "ftp"]) | st.builds("https://{}/x".format, HOST | ANY) | ANY,
    examples=150,
)
@example("http://:[Xq7cdSECRET@[::1]")
@example("https://u:Xq7cdSECRET@h:x/")
@pytest.mark.usefixtures("_no_name_server")
def test_only_public_addresses_are_called(url: str) -> None:
    try:
        target = safe_http.check(url, setting="MASKQ_X")
    except (safe_http.Refused, safe_http.Unreachable) as error:
        assert SECRET not in str(error)
    else:
        assert target.scheme == "https"
        assert all(safe_http.is_public(one) for one in target.addresses)


@fuzzed(ANY | st.builds("s3://{}".format, ANY))
def test_a_place_is_read_as_it_is_written(uri: str) -> None:
    for key_required in (True, False):
        try:
            place = S3Uri.parse(uri, key_required=key_required)
        except ValueError:
            continue
        assert str(place).rstrip("/") == uri.rstrip("/")


# --- headers ------------------------------------------------------------------------------------------

NUMBERS = (
    st.integers().map(str) | st.floats().map(str) | st.sampled_from(["1e999", "٣", "²", "-0", "+5"])
)
DATES = st.sampled_from(
    [
        "Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 99999999999 07:28:00 GMT", 
        "Wed, 21 Oct 0 0:0:0 -9999",
        "1 Jan 1 00:00:00 +2400", "Wed, 00 Foo 2026 99:99:99", "31 Dec 9999 23:59:59 -1200", "GMT",
    ]
)  # fmt: skip


@fuzzed(NUMBERS | DATES | ANY, examples=150)
def test_a_receiver_can_ask_for_a_day_at_most(value: str) -> None:
    assert 0 <= retry_after_s({"retry-after": value}) <= 86_400


@fuzzed(
    st.text(st.characters(max_codepoint=255), max_size=40),
    st.sampled_from(["Bearer ", "Basic ", "", "basic"]),
)
def test_no_header_is_a_token_that_was_not_given_out(value: str, scheme: str) -> None:
    tokens = Tokens(["a-token-of-twenty-characters"])
    assert not tokens.accept({"authorization": scheme + value, "x-api-key": value})


@fuzzed(ANY | DATES | st.datetimes().map(str))
def test_a_time_is_read_or_refused(text: str) -> None:
    try:
        assert milliseconds(text) >= 0
    except ValueError as error:
        assert "ISO 8601" in str(error)


# --- settings -----------------------------------------------------------------------------------------

URLS = (f"https://u:{SECRET}@h", f"redis://u:{SECRET}/@h")
VALUES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40
) | st.sampled_from(
    [
        "-1",
        "nan",
        "inf",
        "1e999",
        "{}",
        "[1",
        '["a"]',
        "null",
        "true",
        " ",
        ",,",
        "demo",
        *URLS,
        "whsec_",
        "whsec_" + "A" * 40,
    ]
)
NAMES = sorted(
    {
        name
        for kind in (Settings, WorkerSettings, GatewaySettings, WebhookSettings)
        for name in kind.model_fields
    }
)


@fuzzed(st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=4), examples=100)
def test_settings_are_taken_or_refused_in_one_sentence(values: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setitem(os.environ, f"MASKQ_{name.upper()}", value)
        for kind in (Settings, WorkerSettings, GatewaySettings, WebhookSettings):
            try:
                RedisUrl.of(kind.load())
            except InvalidRequest as error:
                made_up = any(SECRET in one for one in values.values() if one not in URLS)
                assert made_up or SECRET not in str(error)


# --- the manifest of a run ----------------------------------------------------------------------------

HEAD = {
    "maskq_manifest": 1,
    "run_id": "r",
    "begun": "t",
    "sources": ["a"],
    "options": {"mode": "whole"},
}
LINES = [
    {"image": "a", "job_id": "1"},
    {"image": "a", "job_id": "1", "status": "failed", "code": "timeout", "message": "m"},
    {"image": "b", "status": "refused", "code": "invalid_request", "message": "m"},
]


@fuzzed(
    altered(HEAD),
    st.lists(st.sampled_from(LINES).flatmap(altered), max_size=3),
    st.binary(max_size=8),
)
def test_a_file_that_is_no_manifest_is_refused_and_left_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, head: Any, lines: list[Any], rest: bytes
) -> None:
    path = tmp_path_factory.mktemp("run") / "m.jsonl"
    text = b"".join(json.dumps(one).encode() + b"\n" for one in (head, *lines)) + rest
    path.write_bytes(text)
    try:
        with Manifest(path, ["a"], {"mode": "whole"}, named=True) as manifest:
            assert all(isinstance(image, str) for image in manifest.jobs)
            manifest.codes()
            for image in list(manifest.jobs):
                manifest.is_settled(image, True)
            manifest.accepted("new", "2")
    except InvalidRequest:
        assert path.read_bytes() == text


# --- what callers look for ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(redis_server: RedisServer) -> Iterator[Client]:
    with Client.from_env(redis_url=redis_server.url, key_prefix="fuzz") as connected:
        yield connected


WORD = ANY | st.sampled_from(["failed", "0", "0-0", "$", "9" * 30, "1-1-1", "-", "+", "*", "job:1"])


@fuzzed(
    JSON | WORD, WORD, st.sampled_from(["status", "code", "model", "tenant", "batch_id", "cursor"])
)
def test_a_look_into_the_ledger_finds_or_refuses(
    client: Client, value: Any, word: str, name: str
) -> None:
    for look in (
        lambda: client.list(**{name: word}),
        lambda: client.get(word).refresh(),
        lambda: client.get(word).cancel(),
        lambda: client.deliveries(word),
        lambda: client.redeliver(word),
        lambda: list(client.events(since=word, idle=0.001)),
        lambda: client.submit("s3://photos/a.png", model=word, idempotency_key=word),
        lambda: client.retire_model(word),
    ):
        try:
            look()
        except MaskqError as error:
            assert str(error)
