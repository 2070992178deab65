"""What makes no sense is refused over HTTP, with a document that says why."""

from __future__ import annotations

import io
from typing import Any

import pytest
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.http_api import UNKNOWN, Api, serving, uploaded

from maskq import Client
from maskq_gateway.asgi import application
from maskq_gateway.settings import GatewaySettings

# --- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b"[]", 400, "object"),
        (b'{"image_uri": NaN}', 400, "JSON"),
        (b"[" * 100_000, 400, "JSON"),
        (b'{"image_uri": 5}', 422, "image_uri"),
        (b"{}", 422, "image_uri"),
        (b'{"image_uri": "ftp://x/y"}', 422, "s3://"),
        (b'{"image_uri": "/etc/hostname"}', 422, "s3://"),
        (b'{"image_uri": "file:///etc/hostname"}', 422, "s3://"),
        (b'{"image_uri": ""}', 422, "s3://"),
        (b'{"image_uri": "s3://photos/a.jpg", "output": ["mask"]}', 422, "output"),
        (b'{"image_uri": "s3://photos/a.jpg", "outputs": ["mesh"]}', 422, "outputs"),
        (b'{"image_uri": "s3://photos/a.jpg", "model": "unknown"}', 422, "unknown"),
        (b"x" * (2**20 + 1), 413, "larger"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused(
    api: Api, body: bytes, status: int, said: str
) -> None:
    answer = api.ask("POST", "/v1/jobs", body=body, headers={"Content-Type": "application/json"})
    assert answer.status == status, answer.data
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image": "text"}, "image"),
        ({"image": ("a.png", b"", "image/png")}, "empty"),
        ({"image": ("a.png", b"x"), "model": ("m.txt", b"x")}, "file"),
        ({"image": ("a.png", b"x"), "metadata": "{"}, "metadata"),
        ({"image": ("a.png", b"x"), "speed": "high"}, "speed"),
        ({"image": ("a.png", b"x"), "overlay_alpha": "much"}, "overlay_alpha"),
    ],
)
def test_a_form_that_makes_no_sense_is_refused(api: Api, fields: dict[str, Any], said: str) -> None:
    answer = api.ask("POST", "/v1/jobs", fields=fields)
    assert answer.status in (400, 422), answer.data
    assert said in answer.json()["detail"]


def test_a_file_that_is_no_image_is_refused(api: Api) -> None:
    answer = api.ask("POST", "/v1/jobs", fields={"image": ("a.png", b"{}", "image/png")})
    api.problem(answer, 422, "invalid_image")
    assert "is JSON, which is not accepted" in answer.json()["detail"]


def test_a_broken_form_is_refused(api: Api) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = api.ask("POST", "/v1/jobs", body=b"--x\r\nnonsense", headers=headers)
    api.problem(answer, 422, "invalid_request")
    headers = {"Content-Type": "multipart/form-data"}
    answer = api.ask("POST", "/v1/jobs", body=b"--x\r\nnonsense", headers=headers)
    api.problem(answer, 400, "invalid_request")


def test_an_image_that_is_too_large_is_refused_before_it_is_read(
    client: Client, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_GATEWAY_MAX_UPLOAD_BYTES", "1000")
    with serving(application(GatewaySettings.load(), client)) as served:
        caller = served.with_key(client.create_api_key(["submit"]).text)
        form = {"image": ("a.png", b"x" * (2 * 2**20), "image/png")}
        answer = caller.ask("POST", "/v1/jobs", fields=form)
        caller.problem(answer, 413, "image_too_large")


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (
            {"Content-Type": "text/xml"},
            "the request has Content-Type 'text/xml'; send application/json",
        ),
        ({}, "the request has no Content-Type; send application/json"),
    ],
)
def test_another_type_of_body_is_refused(api: Api, headers: dict[str, str], said: str) -> None:
    answer = api.ask("POST", "/v1/jobs", body=b"<a/>", headers=headers)
    assert api.problem(answer, 415, "invalid_request").startswith(said)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/v1/jobs/{UNKNOWN}", 404),
        ("GET", "/v1/jobs/%00", 404),
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/jobs", 405),
        ("GET", f"/v1/jobs/{UNKNOWN}?wait=-1", 422),
        ("GET", f"/v1/jobs/{UNKNOWN}?wait=1e9", 422),
        ("GET", "/v1/jobs?status=lost", 422),
        ("GET", "/v1/jobs?limit=0", 422),
        ("GET", f"/v1/jobs/{UNKNOWN}/outputs/mesh", 422),
        ("GET", f"/v1/batches/{UNKNOWN}", 404),
    ],
)
def test_errors_are_problem_documents(api: Api, method: str, path: str, status: int) -> None:
    answer = api.ask(method, path)
    assert answer.status == status, answer.data
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_a_wrong_method_is_told_all_that_the_path_has(api: Api) -> None:
    answer = api.ask("PATCH", f"/v1/jobs/{UNKNOWN}")
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(", ")) == {"DELETE", "GET"}


def test_outputs_that_are_not_there_say_why(api: Api, bench: Bench) -> None:
    job = uploaded(api)
    path = f"/v1/jobs/{job['id']}/outputs"
    api.problem(api.get(f"{path}/mask"), 409, "not_found")
    bench.pipeline.run("smallest")
    said = api.problem(api.get(f"{path}/overlay"), 404, "not_found")
    assert "it made: mask" in said
    api.problem(api.get(f"{path}/binary/3"), 404, "not_found")
    assert "mask is one file" in api.problem(api.get(f"{path}/mask/3"), 404, "not_found")


def test_the_binary_mask_of_a_class_is_a_file_of_its_own(api: Api, bench: Bench) -> None:
    job = uploaded(api, {"outputs": "binary"})
    bench.pipeline.run("smallest")
    record = api.get(f"/v1/jobs/{job['id']}").json()
    (first, *_) = record["result"]["labels"]
    path = f"/v1/jobs/{job['id']}/outputs/binary"
    answer = api.get(f"{path}/{first}?delivery=stream")
    assert Image.open(io.BytesIO(answer.data)).mode == "1"
    api.problem(api.get(path), 404, "not_found")


def test_an_output_outside_the_jobs_own_folder_is_not_read(
    api: Api, bench: Bench, client: Client
) -> None:
    secret, job = uploaded(api), uploaded(api)
    for _ in range(2):
        bench.pipeline.run("smallest")
    there = client.get(secret["id"]).refresh()
    here = client.get(job["id"]).refresh()
    assert there.result
    assert here.result
    planted = here.result.model_copy(update={"outputs": there.result.outputs})
    name = f"{client.key_prefix}:job:{job['id']}"
    client.session.ledger.redis.hset(name, "result", planted.model_dump_json())
    answer = api.get(f"/v1/jobs/{job['id']}/outputs/mask?delivery=stream")
    assert "outside" in api.problem(answer, 404, "not_found")
