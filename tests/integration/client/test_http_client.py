"""The client over HTTP: what differs from the direct one, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.damaged import damaged
from support.http_api import Api, serving

from maskq import (
    AsyncClient,
    Client,
    EventsLost,
    FailureCode,
    IdempotencyConflict,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    StoreRefused,
    StoreUnavailable,
    UnknownModel,
    WaitTimeout,
)
from maskq.contract.locations import S3Uri
from maskq.http import transport
from maskq_gateway.asgi import application
from maskq_gateway.settings import GatewaySettings

MASKQ = Path(sys.executable).with_name("maskq")
UNKNOWN = "0199d3c0-0000-7000-8000-000000000000"
KEY = "maskq_0123456789_" + "x" * 43
RECORD = {
    "id": UNKNOWN, "status": "queued", "model": "m", "priority": "normal", "max_attempts": 3,
    "created_ms": 1, "request": {"image_uri": "s3://bucket/key"},
}  # fmt: skip


def png(colour: str = "teal") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def direct(environment: dict[str, str]) -> Iterator[Client]:
    with Client.from_env() as client:
        yield client


@pytest.fixture
def gateway(direct: Client, bench: Bench) -> Iterator[Api]:
    with serving(application(GatewaySettings.load(), direct)) as api:
        yield api


@pytest.fixture
def client(gateway: Api, direct: Client) -> Iterator[Client]:
    with Client(gateway.url, api_key=direct.create_api_key(["admin"]).text) as made:
        yield made


# --- a job's life -------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", ["redirect", "stream"])
def test_submit_wait_and_every_output(
    direct: Client, bench: Bench, delivery: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_GATEWAY_OUTPUTS", delivery)
    outputs = {"mask", "overlay", "stats", "confidence", "logits", "rle", "binary", "uncertain"}
    with serving(application(GatewaySettings.load(), direct)) as api:
        key = direct.create_api_key(["submit", "read"]).text
        with Client(api.url, api_key=key) as client:
            job = client.submit(png(), outputs=outputs, metadata={"order": "7, 8"})
            bench.pipeline.run("smallest")
            result = job.wait(timeout=20)
            there = direct.get(job.id).wait(timeout=1)
            assert job.record == direct.get(job.id).record
            for output in outputs - {"binary"}:
                assert result.read(output) == there.read(output)
            first = next(iter(result.labels))
            assert result.binary(first).tobytes() == there.binary(first).tobytes()
            assert result.mask().size == (60, 40)


def test_awaited_it_does_the_same(gateway: Api, direct: Client, bench: Bench) -> None:
    key = direct.create_api_key(["submit", "read"]).text

    async def all_of_it() -> None:
        async with AsyncClient(gateway.url, api_key=key) as client:
            job = await client.submit(png())
            waits = [asyncio.create_task(job.wait(timeout=30)) for _ in range(20)]
            batch = await client.submit_many([png("red"), png("blue")])
            for _ in range(3):
                await asyncio.to_thread(bench.pipeline.run, "smallest")
            results = await asyncio.gather(*waits)
            assert (await results[0].mask()).size == (60, 40)
            assert len([one async for one in batch.as_completed(timeout=20)]) == 2
            events = [event async for event in client.events("0", job_ids=[job.id], idle=0.3)]
            assert [event.type.rpartition(".")[2] for event in events] == [
                "queued", "running", "succeeded",
            ]  # fmt: skip
            with pytest.raises(JobNotFound):
                await client.get(UNKNOWN)

    asyncio.run(all_of_it())
    asyncio.run(all_of_it())  # another event loop has connections of its own


def test_a_large_image_goes_to_the_store_by_a_presigned_url(
    direct: Client, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_GATEWAY_MAX_UPLOAD_BYTES", "1200000")
    monkeypatch.setenv("MASKQ_GATEWAY_MAX_PRESIGNED_BYTES", "2400000")
    key = direct.create_api_key(["submit", "read"]).text
    with (
        serving(application(GatewaySettings.load(), direct)) as api,
        Client(api.url, api_key=key) as client,
    ):
        for size in (1_100_000, 1_500_000):
            job = client.submit(damaged().ljust(size), metadata={"a": "b"})
            request = job.refresh().request
            assert request.metadata == {"a": "b"}
            assert direct.objects.get(S3Uri.parse(request.image_uri)) == damaged().ljust(size)
        with pytest.raises(InvalidRequest, match="takes 2400000") as raised:
            client.submit(damaged().ljust(3_000_000))
        assert raised.value.code is FailureCode.IMAGE_TOO_LARGE


def test_images_of_a_batch_that_are_too_large_for_the_gateway_go_to_the_store(
    direct: Client, bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MASKQ_GATEWAY_MAX_UPLOAD_BYTES", "1200000")
    monkeypatch.setenv("MASKQ_GATEWAY_MAX_PRESIGNED_BYTES", "2400000")
    key = direct.create_api_key(["submit", "read"], tenant="acme").text
    images = []
    for number, size in enumerate((1_100_000, 1_500_000, 1_500_000, 3_000_000)):
        images.append(tmp_path / f"{number}.png")
        images[-1].write_bytes(damaged(str(number)).ljust(size))
    with (
        serving(application(GatewaySettings.load(), direct)) as api,
        Client(api.url, api_key=key) as client,
    ):
        first = list(client.submit_each(images, run_id="may", metadata={"a": "b"}))
        again = list(client.submit_each(images, run_id="may", metadata={"a": "b"}))
        assert [one.image for one in first if one.error] == [images[3]]
        assert "takes 2400000" in str(next(one.error for one in first if one.error))
        ids = {one.image: one.job.id for one in first if one.job}
        assert {one.image: one.job.id for one in again if one.job} == ids
        for number, image in enumerate(images[:3]):
            record = direct.get(ids[image]).refresh()
            assert (record.batch_id, record.tenant) == ("acme/may", "acme")
            assert record.source == str(image)
            assert record.request.metadata == {"a": "b"}
            stored = direct.objects.get(S3Uri.parse(record.request.image_uri))
            assert stored == damaged(str(number)).ljust(len(stored))
        assert len(direct.list(batch_id="acme/may").records) == 3


def test_a_large_image_under_an_idempotency_key_is_one_job(
    direct: Client, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_GATEWAY_MAX_UPLOAD_BYTES", "1200000")
    with (
        serving(application(GatewaySettings.load(), direct)) as api,
        Client(api.url, api_key=direct.create_api_key(["submit", "read"]).text) as client,
    ):
        ids = {client.submit(damaged().ljust(1_500_000), idempotency_key="k").id for _ in range(2)}
        assert len(ids) == 1
        with pytest.raises(IdempotencyConflict):
            client.submit(damaged().ljust(1_500_001), idempotency_key="k")
        with pytest.raises(IdempotencyConflict):
            client.submit(damaged().ljust(1_500_000), idempotency_key="k", outputs={"stats"})


def test_a_failed_job_is_the_same_error(client: Client, bench: Bench) -> None:
    job = client.submit(damaged("not an image"))
    bench.pipeline.run("smallest")
    with pytest.raises(JobFailed) as raised:
        job.wait(timeout=10)
    assert raised.value.code is FailureCode.INVALID_IMAGE
    waiting = client.submit(png())
    with pytest.raises(WaitTimeout, match="still queued"):
        waiting.wait(timeout=0.1)


def test_a_group_shares_the_events(client: Client) -> None:
    ids = [client.submit(png()).id for _ in range(4)]
    one, other = (client.events("0", group="shop", idle=30, take_over=600) for _ in range(2))
    got = [next(reader).subject for reader in (one, other, one, other)]
    assert sorted(got) == sorted(ids)
    one.close()  # neither confirms its last event, which another reader takes over
    other.close()
    third = client.events("0", group="shop", idle=30, take_over=0)
    assert [next(third).subject, next(third).subject] == got[2:]
    third.close()


def test_models_and_deliveries(client: Client) -> None:
    assert [model.name for model in client.models()] == ["smallest"]
    assert client.default_model().name == "smallest"
    assert list(client.deliveries()) == []
    with pytest.raises(JobNotFound, match="delivery"):
        client.redeliver("nothing")
    with pytest.raises(UnknownModel, match="smallest"):
        client.submit(png(), model="smalles")


# --- what needs Redis ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation",
    [
        lambda client: client.create_api_key(["read"]),
        lambda client: client.api_keys(),
        lambda client: client.revoke_api_key("0123456789"),
        lambda client: client.set_default_model("smallest"),
        lambda client: client.retire_model("smallest"),
        lambda client: client.delete_tenant("acme", older_than=0),
        lambda client: client.set_tenant("acme", weight=2),
        lambda client: client.tenants(),
        lambda client: client.settings,
        lambda client: client.objects,
        lambda client: client.session.ledger,
    ],
)
def test_what_needs_redis_says_so(operation: Callable[[Client], Any]) -> None:
    client = Client("https://gateway.example", api_key=KEY)
    with pytest.raises(InvalidRequest, match=r"needs access to Redis.*MASKQ_REDIS_URL"):
        operation(client)


# --- the URL and the key ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("redis://:secret@host/0",), "redis_url="),
        (("https://gateway.example",), "needs an API key: give api_key"),
        (("https://user:secret@gateway.example", KEY), "user name or password"),
        (("http://gateway.example", KEY), "MASKQ_GATEWAY_PLAIN_HTTP_HOSTS"),
        (("https://gateway.example?key=secret", KEY), "query"),
        (("https://gateway.example:port", KEY), "not a valid URL"),
        (("https://", KEY), "not valid"),
        (("https://gateway.example", "secret key"), "not the text of a key"),
        ((None, KEY), "goes with the URL"),
        (("https://gateway.example", "secret\nX: y"), "not the text of a key"),
    ],
)
def test_a_wrong_address_or_key_is_refused_at_once(arguments: tuple[Any, ...], said: str) -> None:
    url, *key = arguments
    with pytest.raises(InvalidRequest, match=said) as raised:
        Client(url, api_key=key[0] if key else None)
    assert "secret" not in str(raised.value)


def test_plain_http_needs_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_GATEWAY_PLAIN_HTTP_HOSTS", "gateway.internal")
    Client("http://gateway.internal:8090/masks/", api_key=KEY)
    for loopback in ("http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1"):
        Client(loopback, api_key=KEY)


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    monkeypatch.setenv("MASKQ_GATEWAY_URL", "https://gateway.example")
    monkeypatch.setenv("MASKQ_API_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(InvalidRequest, match="gateway"):
        _ = Client.from_env().settings
    assert Client.from_env(transport="direct").settings
    monkeypatch.setenv("MASKQ_REDIS_URL", "redis://host/0")
    assert Client.from_env().settings
    with pytest.raises(InvalidRequest, match="gateway"):
        _ = Client.from_env(transport="http").settings
    monkeypatch.setenv("MASKQ_TRANSPORT", "http")
    with pytest.raises(InvalidRequest, match="gateway"):
        _ = Client.from_env().settings
    with pytest.raises(InvalidRequest, match="s3_bucket"):
        Client.from_env(s3_bucket="photos")
    with pytest.raises(InvalidRequest, match="'direct' or 'http'"):
        Client.from_env(transport="ftp")  # type: ignore[arg-type]


def test_no_repr_shows_the_key_and_a_client_can_be_pickled(client: Client) -> None:
    again = pickle.loads(pickle.dumps(client))  # noqa: S301 - its own
    assert again.list().records == ()
    again.close()
    with pytest.raises(JobNotFound) as raised:
        client.get(UNKNOWN)
    told = "".join(traceback.format_exception(raised.value)) + repr(client) + repr(vars(client))
    assert "maskq_" not in told


@pytest.mark.parametrize("state", ["unknown", "expired", "scope"])
def test_a_key_that_does_not_open(gateway: Api, direct: Client, state: str) -> None:
    made = direct.create_api_key(["read"], expires_in=0.001 if state == "expired" else None)
    client = Client(gateway.url, api_key=KEY if state == "unknown" else made.text)
    with client, pytest.raises(StoreRefused, match="MASKQ_API_KEY") as raised:
        client.submit("s3://photos/a.jpg")
    assert raised.value.code is FailureCode.ACCESS_DENIED
    assert KEY not in str(raised.value)


def test_another_tenants_job_is_unknown(gateway: Api, direct: Client) -> None:
    keys = [
        direct.create_api_key(["submit", "read"], tenant=name).text for name in ("acme", "zeta")
    ]
    with Client(gateway.url, api_key=keys[0]) as acme, Client(gateway.url, api_key=keys[1]) as zeta:
        job = acme.submit(png())
        runs = [list(one.submit_each(["s3://photos/a.jpg"], run_id="may")) for one in (acme, zeta)]
        assert all(one.job for (one,) in runs)
        for ask in (zeta.get, zeta.retry, zeta.delete, lambda i: zeta.batch(i, []).progress()):
            with pytest.raises(JobNotFound, match=job.id):
                ask(job.id)
        # Each tenant has a run of this name of its own.
        listed = [[r.id for r in one.list(batch_id="may").records] for one in (acme, zeta)]
        assert listed == [[one.job.id] for (one,) in runs if one.job]
        batch = acme.submit_many(["s3://photos/a.jpg"])
        with pytest.raises(JobNotFound):
            zeta.batch(batch.id, [batch.jobs[0].id]).progress()


# --- gateways that are away, of another kind, or lose answers -----------------------------------------


class Answers(BaseHTTPRequestHandler):
    """Answers each request with the next of `answers`; a None closes the connection instead."""

    answers: ClassVar[list[Any]]
    asked: ClassVar[list[dict[str, str]]]

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.asked.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            self.close_connection = True
            return
        status, headers, document = answer
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(*answers: Any) -> Iterator[tuple[Client, list[dict[str, str]]]]:
    asked: list[dict[str, str]] = []
    handler = type("Handler", (Answers,), {"answers": list(answers), "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with Client(f"http://127.0.0.1:{server.server_address[1]}", api_key=KEY) as client:
                yield client, asked
        finally:
            server.shutdown()
            thread.join()


def problem(status: int, code: str, detail: str = "x", **headers: str) -> Any:
    document = {"type": "about:blank", "status": status, "code": code, "detail": detail}
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": "application/problem+json", **headers}, document


def test_a_submission_whose_answer_is_lost_is_repeated_under_the_same_key() -> None:
    with answering(None, (202, {}, RECORD)) as (client, asked):
        assert client.submit("s3://photos/a.jpg").id == UNKNOWN
        client.submit("s3://photos/a.jpg")
    first, again, other = (one["idempotency-key"] for one in asked)
    assert first == again
    assert other != first


def test_a_gateway_that_is_away_is_named_with_what_to_do() -> None:
    client = Client("http://127.0.0.1:9", api_key=KEY)
    with (
        client,
        pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:9.*MASKQ_GATEWAY_URL") as raised,
    ):
        client.get(UNKNOWN)
    assert raised.value.code is FailureCode.STORE_UNAVAILABLE


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_and_the_key_stays(status: int) -> None:
    with answering((200, {}, RECORD)) as (other, asked_elsewhere):
        target = other.session.address.url
        redirect = (status, {"Location": f"{target}/v1"}, {})
        with answering(redirect) as (client, _), pytest.raises(StoreUnavailable, match="redirects"):
            client.get(UNKNOWN)
    assert asked_elsewhere == []


def test_an_output_is_fetched_from_the_store_without_the_key() -> None:
    done = {
        **RECORD,
        "status": "succeeded",
        "result": {"width": 1, "height": 1, "model": "m", "outputs": {"mask": "s3://b/m.png"}},
    }
    with answering((200, {}, b"the mask")) as (other, asked_elsewhere):
        location = f"{other.session.address.url}/m.png?signature=1"
        with answering((200, {}, done), (302, {"Location": location}, {})) as (client, _):
            assert client.get(UNKNOWN).result().read("mask") == b"the mask"
    (asked,) = asked_elsewhere
    assert asked["path"] == "/m.png?signature=1"
    assert "authorization" not in asked


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {}, b"<html>hello"), "form that this client does not know"),
        ((200, {}, {"hello": 1}), "form that this client does not know"),
        ((404, {"Content-Type": "text/html"}, b"not here"), "MASKQ_GATEWAY_URL names a gateway"),
        (problem(404, "invalid_request", "GET /v1/jobs/x: not found"), "no such route"),
    ],
)
def test_something_else_than_a_gateway_of_this_version(answer: Any, said: str) -> None:
    with answering(answer) as (client, _), pytest.raises(StoreUnavailable, match=said):
        client.get(UNKNOWN)


def test_options_of_a_newer_gateway_are_left_out() -> None:
    newer = {**RECORD, "request": {**RECORD["request"], "later": 1}, "later": 2}  # type: ignore[dict-item]
    with answering((200, {}, newer)) as (client, _):
        assert client.get(UNKNOWN).id == UNKNOWN


def test_a_result_with_an_output_of_a_newer_worker_is_listed_and_its_read_says_what_to_do() -> None:
    made = {"mask": "s3://out/1/mask.png", "depth": "s3://out/1/depth.png"}
    newer = {
        **RECORD,
        "status": "succeeded",
        "result": {"width": 1, "height": 1, "model": "demo", "outputs": made},
    }
    page = {"jobs": [newer], "cursor": ""}
    with answering((200, {}, page), (200, {}, newer)) as (client, _):
        (listed,) = client.list().records
        assert listed.result is not None
        assert listed.result.outputs == made
        result = client.get(UNKNOWN).result()
        assert result.uri("depth") == made["depth"]  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="newer version of maskq; upgrade this client"):
            result.read("depth")  # type: ignore[arg-type]


def test_the_version_is_looked_up_once_and_not_with_each_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up = []
    monkeypatch.setattr(transport, "version", lambda name: looked_up.append(name) or "1.2.3")
    with answering((200, {}, RECORD)) as (client, asked):
        for _ in range(3):
            client.get(UNKNOWN)
    assert asked[-1]["user-agent"].startswith("maskq/")
    assert len(looked_up) <= 1  # none, if an earlier test sent a request


@pytest.mark.parametrize("code", ["store_unavailable", "rate_limited"])
def test_retry_after_is_waited_for(code: str) -> None:
    status = 429 if code == "rate_limited" else 503
    refused = problem(status, code, Retry_After="1")
    with answering(refused, (200, {}, RECORD)) as (client, asked):
        assert client.get(UNKNOWN).id == UNKNOWN
        assert len(asked) == 2


def test_an_outage_of_the_store_is_the_same_error() -> None:
    with answering(problem(503, "store_unavailable", "the ledger is away")) as (client, asked):
        with pytest.raises(StoreUnavailable, match="the ledger is away"):
            client.get(UNKNOWN)
        assert len(asked) == 3


def test_events_that_were_trimmed_are_told(client: Client, direct: Client) -> None:
    client.submit(png())
    direct.session.ledger.redis.xtrim(f"{direct.key_prefix}:events", maxlen=0, approximate=False)
    with pytest.raises(EventsLost):
        next(client.events("1-0", idle=1))
    with pytest.raises(InvalidRequest, match="cursor"):
        next(client.events("yesterday", idle=1))


def test_an_event_reader_goes_on_where_a_gateway_left_off(
    direct: Client, bench: Bench, environment: dict[str, str]
) -> None:
    key = direct.create_api_key(["read"]).text
    with serving(application(GatewaySettings.load(), direct)) as api:
        client = Client(api.url, api_key=key)
        events = client.events("0", idle=5)
        first = direct.submit(png())
        assert next(events).subject == first.id
        second = direct.submit(png())
        assert next(events).subject == second.id
        events.close()
        client.close()


# --- without redis and boto3 --------------------------------------------------------------------------

ALONE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("redis", "boto3", "botocore", "urllib3"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from maskq import Client
with Client.from_env() as client:
    job = client.submit(sys.argv[1])
    print(job.id, flush=True)
    print(job.wait(timeout=60).mask().size)
"""


def test_it_needs_neither_redis_nor_boto3(
    gateway: Api, direct: Client, bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png())
    env = {
        "PATH": "",
        "MASKQ_GATEWAY_URL": gateway.url,
        "MASKQ_API_KEY": direct.create_api_key(["submit", "read"]).text,
    }
    command = [sys.executable, "-c", ALONE, str(tmp_path / "a.png")]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert len(running.stdout.readline().strip()) == len(UNKNOWN)
        bench.pipeline.run("smallest")
        assert running.stdout.read().strip() == "(60, 40)"
    assert running.returncode == 0


def test_the_command_needs_a_url_and_a_key_alone(
    gateway: Api, direct: Client, bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png())
    env = {
        "PATH": "",
        "MASKQ_GATEWAY_URL": gateway.url,
        "MASKQ_API_KEY": direct.create_api_key(["admin"]).text,
    }

    def maskq(*arguments: str, code: int = 0) -> str:
        ran = subprocess.run(
            [MASKQ, *arguments], env=env, capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert ran.returncode == code, ran.stderr
        return ran.stdout + ran.stderr

    job_id = maskq("submit", "a.png").strip()
    bench.pipeline.run("smallest")
    assert "succeeded" in maskq("wait", job_id)
    assert "succeeded" in maskq("status", job_id)
    assert job_id in maskq("list")
    assert job_id in maskq("events", "--since", "0", "--idle", "0.5")
    assert "smallest" in maskq("models", "list")
    assert "access to Redis" in maskq("keys", "list", code=1)
    assert "give direct or http" in maskq("--transport", "ftp", "list", code=2)
    assert "127.0.0.1:6379" in maskq("--transport", "direct", "list", code=1)  # the default
    maskq("delete", job_id)
    assert "no job" in maskq("status", job_id, code=1)
