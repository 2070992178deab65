"""Every form of MASKQ_REDIS_URL leads client, broker and results to one place, by one set of rules."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from support.redis_servers import TunedRedis, running
from support.tls import Authority, TlsProxy

from maskq.contract import FailureCode
from maskq.errors import StoreUnavailable
from maskq.ledger import AsyncLedger, Ledger, RedisUrl, calls
from maskq.ledger.calls import Call
from maskq_worker.broker.app import make_app
from maskq_worker.process.capacity import Capacity
from maskq_worker.settings import WorkerSettings

# Celery's own: it stores by SETEX.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

PASSWORD = "p/a ss@:%wörd"
LISTED = Call(None, ("CLIENT", "LIST"), str)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TunedRedis]:
    """With a Unix socket, a password that must be quoted, and a user who may do everything."""
    with tempfile.TemporaryDirectory(prefix="maskq-") as short:  # a socket's path is short
        redis = TunedRedis(
            tmp_path_factory.mktemp("redis"),
            f"unixsocket {short}/r.sock",
            f"user ada on >{PASSWORD.replace(' ', '_')} ~* &* +@all",
            password=PASSWORD,
        )
        with running(redis):
            yield redis


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def proxy(server: TunedRedis, authority: Authority) -> Iterator[TlsProxy]:
    with TlsProxy(server.port, authority.certificate("127.0.0.1", "localhost")) as running_proxy:
        yield running_proxy


def everything_works(url: str, db: int, server: TunedRedis, ca: Path | None = None) -> None:
    """Ledger, async ledger, a message through the broker's connection and a stored result."""
    settings = WorkerSettings(redis_url=url, redis_ca_file=ca, key_prefix="forms", model="demo")  # type: ignore[arg-type]
    parsed = RedisUrl.of(settings)
    touch, record = calls.touch(), calls.get("none")
    ledger = Ledger(parsed, "forms")
    ledger.run(touch)
    ledger.close()

    async def ask() -> object:
        awaited = AsyncLedger(parsed, "forms")
        try:
            return await awaited.run(record)
        finally:
            await awaited.close()

    assert asyncio.run(ask()) is None
    app = make_app(settings, "demo", Capacity(1, 1, 1))
    with app.connection_for_write() as connection:
        queue = connection.SimpleQueue("forms.demo")
        app.send_task("maskq.segment", args=["a request"], queue="forms.demo")
        with server.admin() as admin:
            admin.select(db)
            assert admin.llen("forms.demo") == 1
            assert admin.exists("forms:durable")
        assert queue.get(timeout=5).payload[0][0] == ["a request"]
        queue.close()
    app.backend.store_result("an-id", {"a": "result"}, "SUCCESS")
    assert app.backend.get_result("an-id") == {"a": "result"}
    app.backend.client.close()
    app.close()
    with server.admin() as admin:
        admin.select(db)
        assert admin.exists("celery-task-meta-an-id")
        admin.flushall()


@pytest.mark.parametrize(
    ("form", "db"),
    [
        ("redis://:{password}@127.0.0.1:{port}/3", 3),
        ("redis://:{password}@127.0.0.1:{port}?db=3", 3),
        ("redis://ada:{ada}@127.0.0.1:{port}", 0),
        ("redis://127.0.0.1:{port}?username=ada&password={ada}&client_name=ours", 0),
        (
            "redis://:{password}@localhost:{port}/0?socket_timeout=7&socket_connect_timeout=3"
            "&protocol=2&health_check_interval=0&max_connections=3",
            0,
        ),
        ("unix://:{password}@{socket}?db=2", 2),
        ("redis+socket://:{password}@{socket}?virtual_host=2&socket_keepalive=true", 2),
    ],
)
def test_a_form_means_the_same_everywhere(server: TunedRedis, form: str, db: int) -> None:
    path = next(line.split()[1] for line in server.lines if "unixsocket" in line)
    ada = quote(PASSWORD.replace(" ", "_"), safe="")
    url = form.format(password=quote(PASSWORD, safe=""), ada=ada, port=server.port, socket=path)
    everything_works(url, db, server)


def test_with_tls_and_an_own_ca_no_byte_goes_out_in_clear(
    server: TunedRedis, authority: Authority, proxy: TlsProxy
) -> None:
    url = f"rediss://:{quote(PASSWORD, safe='')}@localhost:{proxy.port}/1"
    everything_works(url, 1, server, authority.file)
    everything_works(f"{url}?ssl_ca_certs={authority.file}", 1, server)
    assert proxy.seen.connections >= 6
    assert proxy.seen.in_clear == []


def test_a_client_shows_its_certificate_where_the_server_wants_one(
    server: TunedRedis, authority: Authority
) -> None:
    certificate, key = authority.certificate("client")
    with TlsProxy(
        server.port, authority.certificate("localhost"), clients_of=authority.file
    ) as proxy:
        url = f"rediss://:{quote(PASSWORD, safe='')}@localhost:{proxy.port}/1"
        shown = f"{url}?ssl_certfile={certificate}&ssl_keyfile={key}"
        everything_works(shown, 1, server, authority.file)
        with pytest.raises(StoreUnavailable):
            Ledger(RedisUrl.parse(url, authority.file), "x").run(calls.touch())


@pytest.mark.parametrize(
    ("name", "with_ca", "said"),
    [
        ("localhost", "another", "shows a certificate that is not trusted here"),
        ("localhost", None, "name who signs it in MASKQ_REDIS_CA_FILE"),
        ("redis.internal", "its", "certificate is not valid for 'localhost'"),
    ],
    ids=["another CA", "no CA", "another host"],
)
def test_a_certificate_that_is_not_trusted_is_one_clear_error(
    tmp_path: Path,
    server: TunedRedis,
    authority: Authority,
    name: str,
    with_ca: str | None,
    said: str,
) -> None:
    cas = {"another": Authority(tmp_path).file, "its": authority.file, None: None}
    with TlsProxy(server.port, authority.certificate(name)) as proxy:
        parsed = RedisUrl.parse(f"rediss://:swordfish@localhost:{proxy.port}", cas[with_ca])
        refuses(parsed, said)


def refuses(parsed: RedisUrl, said: str) -> None:
    async def ask() -> None:
        awaited = AsyncLedger(parsed, "forms")
        try:
            await awaited.run(calls.touch())
        finally:
            await awaited.close()

    ledger = Ledger(parsed, "forms")
    for attempt in (lambda: ledger.run(calls.touch()), lambda: asyncio.run(ask())):
        with pytest.raises(StoreUnavailable) as refused:
            attempt()
        assert said in str(refused.value)
        assert "swordfish" not in str(refused.value)
        assert refused.value.code is FailureCode.ACCESS_DENIED
    ledger.close()


def test_a_server_that_speaks_no_tls_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    with near:
                        near.recv(100)
                        near.sendall(b"-ERR Protocol error\r\n")

        threading.Thread(target=answer, daemon=True).start()
        port = listener.getsockname()[1]
        refuses(RedisUrl.parse(f"rediss://:swordfish@127.0.0.1:{port}"), "do not agree on TLS")
        listener.shutdown(socket.SHUT_RDWR)


def test_options_of_the_url_reach_the_connections(server: TunedRedis) -> None:
    url = f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/5?client_name=by-its-name"
    ledger = Ledger(url, "forms")
    assert "name=by-its-name" in ledger.run(LISTED)
    ledger.close()


def test_celery_s_own_variables_do_not_lead_elsewhere(
    server: TunedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's pod may have them for another application."""
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.setenv(name, "redis://127.0.0.1:1/0")
    everything_works(f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/6", 6, server)
