"""How the gateway is served: by HTTPS, behind proxies, below a path, within another application."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3
from fastapi import FastAPI
from integration.worker.test_pipeline import Bench
from support.http_api import serving
from support.tls import Authority

from maskq import Client
from maskq_gateway.asgi import create_app
from maskq_gateway.server import listening
from maskq_worker.model import Segmenter


@pytest.fixture
def client(environment: dict[str, str]) -> Iterator[Client]:
    with Client.from_env() as connected:
        yield connected


@pytest.fixture
def bench(segmenter: Segmenter, environment: dict[str, str]) -> Iterator[Bench]:
    """Serves a model."""
    made = Bench(segmenter)
    yield made
    made.close()
    made.store.close()


@contextmanager
def gateway(**settings: str) -> Iterator[subprocess.Popen[str]]:
    """`maskq gateway` with more settings, as a shell runs it."""
    line = [sys.executable, "-m", "maskq", "gateway", "--port", "0"]
    with subprocess.Popen(
        line, env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def url_of(child: subprocess.Popen[str]) -> str:
    assert child.stderr
    line = child.stderr.readline()
    assert line.startswith("listening on "), line
    return line.split()[-1]


def rest_of(child: subprocess.Popen[str]) -> str:
    """What it logs until it has ended."""
    child.send_signal(signal.SIGTERM)
    said = child.communicate(timeout=30)[1]
    assert child.returncode == 0
    return said


def test_https_by_files_of_a_certificate_and_its_key(client: Client, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.certificate("127.0.0.1")
    files = {
        "MASKQ_GATEWAY_TLS_CERTIFICATE": str(certificate),
        "MASKQ_GATEWAY_TLS_KEY": str(key),
    }
    with gateway(**files) as child:
        url = url_of(child)
        assert url.startswith("https://127.0.0.1:")
        with urllib3.PoolManager(ca_certs=str(authority.file), retries=False) as pool:
            assert pool.request("GET", f"{url}/healthz").json() == {"status": "ok"}
        assert rest_of(child) == ""


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"MASKQ_GATEWAY_TLS_KEY": "key.pem"}, "set both MASKQ_GATEWAY_TLS_CERTIFICATE and"),
        (
            {"MASKQ_GATEWAY_TLS_CERTIFICATE": "absent.pem", "MASKQ_GATEWAY_TLS_KEY": "key.pem"},
            "the certificate absent.pem with the key key.pem cannot be used: ",
        ),
        ({"MASKQ_TRUSTED_PROXIES": "10.0.0.300"}, "MASKQ_TRUSTED_PROXIES"),
        ({"MASKQ_GATEWAY_ROOT_PATH": "masks/"}, "MASKQ_GATEWAY_ROOT_PATH"),
    ],
)
def test_gateway_ends_with_78_and_one_line_when_a_setting_is_wrong(
    client: Client, files: dict[str, str], said: str
) -> None:
    with gateway(**files) as child:
        _, printed = child.communicate(timeout=30)
        assert child.returncode == 78
    assert said in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("trusted", "logged"), [("127.0.0.0/8", "203.0.113.9"), ("10.0.0.0/8", "127.0.0.1")]
)
def test_callers_address_is_taken_from_trusted_proxies_only(
    client: Client, trusted: str, logged: str
) -> None:
    with gateway(MASKQ_TRUSTED_PROXIES=trusted) as child, urllib3.PoolManager() as pool:
        url = url_of(child)
        headers = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
        assert pool.request("GET", f"{url}/v1/jobs", headers=headers).status == 401
        assert f"from {logged} with 401: no API key" in rest_of(child)


def test_forwarded_headers_are_ignored_when_no_proxy_is_trusted(client: Client) -> None:
    with gateway() as child, urllib3.PoolManager() as pool:
        url = url_of(child)
        headers = {"X-Forwarded-For": "203.0.113.9"}
        assert pool.request("GET", f"{url}/v1/jobs", headers=headers).status == 401
        assert "203.0.113.9" not in rest_of(child)


def test_locations_begin_with_the_root_path(client: Client, bench: Bench) -> None:
    key = client.create_api_key(["submit", "read"]).text
    with gateway(MASKQ_GATEWAY_ROOT_PATH="/masks") as child, urllib3.PoolManager() as pool:
        url = url_of(child)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        body = json.dumps({"image_uri": "s3://photos/a.jpg"})
        answer = pool.request("POST", f"{url}/v1/jobs", headers=headers, body=body)
        assert answer.status == 202, answer.data
        assert answer.headers["Location"] == f"/masks/v1/jobs/{answer.json()['id']}"


def test_application_works_below_a_path_of_another_one(client: Client, bench: Bench) -> None:
    key = client.create_api_key(["submit", "read"]).text
    outer = FastAPI()
    mounted = create_app()
    outer.mount("/masks", mounted)
    with serving(outer) as stranger:
        api = stranger.with_key(key)
        assert b"<title>" in api.get("/masks/").data
        job = api.post("/masks/v1/jobs", {"image_uri": "s3://photos/a.jpg"})
        assert job.status == 202
        assert api.get(job.headers["Location"]).json()["id"] == job.json()["id"]


def test_text_is_compressed_on_request(client: Client) -> None:
    key = client.create_api_key(["read"]).text
    with serving(create_app()) as stranger:
        api = stranger.with_key(key)
        accepts = {"Accept-Encoding": "gzip"}
        packed = api.get("/openapi.json", headers=accepts, decode_content=False)
        assert packed.headers["Content-Encoding"] == "gzip"
        plain = api.get("/openapi.json", headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers
        assert len(packed.data) < len(plain.data) / 4


def test_an_accepted_connection_sends_an_answers_body_without_waiting() -> None:
    with (
        listening("127.0.0.1", 0) as bound,
        socket.create_connection(bound.getsockname()),
    ):
        accepted, _ = bound.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
