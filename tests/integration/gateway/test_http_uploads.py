"""Images that callers put into the store by a presigned URL, and submit afterwards."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.http_api import UNKNOWN, Api, png, serving

from maskq import Client
from maskq.contract.storage_layout import StorageLayout
from maskq_gateway.asgi import application
from maskq_gateway.settings import GatewaySettings
from maskq_standalone.servers.s3 import S3Server
from maskq_worker.jobs.retention import Retention

LIMIT = 100_000


@pytest.fixture
def settings(environment: dict[str, str]) -> GatewaySettings:
    return GatewaySettings.load(gateway_max_presigned_bytes=LIMIT)


@pytest.fixture
def retention(bench: Bench) -> Retention:
    return Retention(bench.ledger, bench.store, bench.settings.layout)


def begun(api: Api, size: int = 1000, **more: Any) -> dict[str, Any]:
    answer = api.post("/v1/uploads", {"bytes": size, **more})
    assert answer.status == 201, answer.data
    upload: dict[str, Any] = answer.json()
    return upload


def put(upload: dict[str, Any], body: bytes) -> None:
    with urllib3.PoolManager() as pool:
        answer = pool.request(upload["method"], upload["url"], body=body)
    assert answer.status == 200, answer.data


def uploaded(api: Api, **more: Any) -> dict[str, Any]:
    upload = begun(api, len(png()), **more)
    put(upload, png())
    return upload


def bmp(colour: str) -> bytes:
    """Of any colour as many bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(buffer, "BMP")
    return buffer.getvalue()


def time_passes(bench: Bench, seconds: float) -> None:
    name = f"{bench.prefix}:uploads"
    for member in bench.ledger.redis.zrange(name, 0, -1):
        bench.ledger.redis.zincrby(name, -1000 * seconds, member)


def uploads(bench: Bench) -> list[str]:
    return list(bench.ledger.redis.zrange(f"{bench.prefix}:uploads", 0, -1))


# --- an upload's life ---------------------------------------------------------------------------------


def test_an_uploaded_image_becomes_a_mask(api: Api, bench: Bench) -> None:
    upload = uploaded(api)
    assert upload["headers"] == {"Content-Length": str(len(png()))}
    answer = api.post("/v1/jobs", {**upload["submit"], "outputs": ["mask"]})
    assert answer.status == 202
    assert answer.json()["id"] == upload["upload_id"]
    bench.pipeline.run("smallest")
    assert api.get(f"/v1/jobs/{upload['upload_id']}?wait=10").json()["status"] == "succeeded"
    assert uploads(bench) == []


@pytest.mark.parametrize("size", [0, 999, 1001, 10 * LIMIT])
def test_the_store_takes_no_object_of_another_size(
    api: Api, bench: Bench, s3_server: S3Server, size: int
) -> None:
    upload = begun(api, 1000)
    with urllib3.PoolManager() as pool:
        assert pool.request("PUT", upload["url"], body=bytes(size)).status == 403
    assert objects(s3_server, bench) == []


def test_the_url_leads_to_the_public_address_of_the_store(
    environment: dict[str, str], client: Client, bench: Bench
) -> None:
    settings = GatewaySettings.load(s3_public_endpoint_url="https://store.example")
    key = client.create_api_key(["submit"]).text
    with serving(application(settings, client)) as api:
        upload = begun(api.with_key(key))
    assert upload["url"].startswith("https://store.example/")


def test_submitted_again_it_is_the_same_job(api: Api) -> None:
    upload = uploaded(api)
    first = api.post("/v1/jobs", upload["submit"])
    again = api.post("/v1/jobs", upload["submit"])
    assert (first.status, again.status) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    answer = api.post("/v1/jobs", {**upload["submit"], "outputs": ["stats"]})
    api.problem(answer, 422, "idempotency_conflict")


def test_submitted_many_times_at_once_it_is_one_job(api: Api, client: Client) -> None:
    upload = uploaded(api)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.post("/v1/jobs", upload["submit"]), range(16)))
    assert [(one.status, one.json()["id"]) for one in answers] == 16 * [(202, upload["upload_id"])]
    assert len(client.list().records) == 1


def test_with_an_idempotency_key_a_second_upload_returns_the_first_job(
    api: Api, client: Client
) -> None:
    first, second = uploaded(api), uploaded(api)
    for upload in (first, first, second, second):
        answer = api.post("/v1/jobs", upload["submit"], headers={"Idempotency-Key": "order-1"})
        assert (answer.status, answer.json()["id"]) == (202, first["upload_id"])
    assert len(client.list().records) == 1


def test_many_uploads_with_one_idempotency_key_at_once_are_one_job(
    api: Api, client: Client
) -> None:
    made = [uploaded(api) for _ in range(6)]
    headers = {"Idempotency-Key": "order-1"}
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda one: api.post("/v1/jobs", one["submit"], headers=headers), made)
        )
    assert {one.status for one in answers} == {202}
    assert len({one.json()["id"] for one in answers}) == 1
    assert len(client.list().records) == 1


@pytest.mark.parametrize("other", ["image", "options", "kind"])
def test_an_idempotency_key_of_another_request_is_refused(
    api: Api, client: Client, bench: Bench, other: str
) -> None:
    headers = {"Idempotency-Key": "order-1"}
    upload = begun(api, len(bmp("teal")))
    put(upload, bmp("teal"))
    if other == "kind":
        bench.submit("a")
        document = {"image_uri": bench.record("a").request.image_uri}
    elif other == "image":
        another = begun(api, len(bmp("red")))
        put(another, bmp("red"))
        document = another["submit"]
    else:
        document = {**uploaded(api)["submit"], "outputs": ["stats"]}
    assert api.post("/v1/jobs", document, headers=headers).status == 202
    answer = api.post("/v1/jobs", upload["submit"], headers=headers)
    assert "order-1" in api.problem(answer, 422, "idempotency_conflict")
    # Also once the upload is a job
    assert api.post("/v1/jobs", upload["submit"]).status == 202
    answer = api.post("/v1/jobs", upload["submit"], headers=headers)
    api.problem(answer, 422, "idempotency_conflict")


def test_the_idempotency_key_of_a_deleted_job_can_be_used_again(api: Api) -> None:
    headers = {"Idempotency-Key": "order-1"}
    first, second = uploaded(api), uploaded(api)
    api.post("/v1/jobs", first["submit"], headers=headers)
    api.ask("DELETE", f"/v1/jobs/{first['upload_id']}")
    answer = api.post("/v1/jobs", second["submit"], headers=headers)
    assert (answer.status, answer.json()["id"]) == (202, second["upload_id"])


def test_tenants_choose_idempotency_keys_of_uploads_independently(acme: Api, other: Api) -> None:
    headers = {"Idempotency-Key": "order-1"}
    for caller in (acme, other):
        upload = uploaded(caller)
        answer = caller.post("/v1/jobs", upload["submit"], headers=headers)
        assert answer.json()["id"] == upload["upload_id"]


@pytest.mark.parametrize("durable", [False, True])
def test_durable_waits_until_the_job_is_on_disk(api: Api, bench: Bench, durable: bool) -> None:
    query = "?durable=true" if durable else ""
    assert api.post(f"/v1/jobs{query}", uploaded(api)["submit"]).status == 202
    assert bench.ledger.redis.exists(f"{bench.prefix}:durable") == durable


def test_an_image_replaced_after_the_submission_fails_the_job(api: Api, bench: Bench) -> None:
    upload = begun(api, len(bmp("teal")))
    put(upload, bmp("teal"))
    api.post("/v1/jobs", upload["submit"])
    put(upload, bmp("red"))
    bench.pipeline.run("smallest")
    record = api.get(f"/v1/jobs/{upload['upload_id']}").json()
    assert (record["status"], record["error"]["code"]) == ("failed", "source_changed")
    # A retry gets a copy of what is there now
    again = api.post(f"/v1/jobs/{upload['upload_id']}/retry").json()
    bench.pipeline.run("smallest")
    assert api.get(f"/v1/jobs/{again['id']}").json()["status"] == "succeeded"


def test_a_tenants_upload_lies_in_its_folder(acme: Api, settings: GatewaySettings) -> None:
    upload = uploaded(acme)
    record = acme.post("/v1/jobs", upload["submit"]).json()
    assert f"/tenants/acme/{upload['upload_id']}/input" in record["request"]["image_uri"]
    assert record["tenant"] == "acme"


def test_a_key_of_no_tenant_names_the_tenant_twice(api: Api, bench: Bench) -> None:
    upload = uploaded(api, tenant="acme")
    api.problem(api.post("/v1/jobs", upload["submit"]), 404, "not_found")
    answer = api.post("/v1/jobs", {**upload["submit"], "tenant": "acme"})
    assert (answer.status, answer.json()["tenant"]) == (202, "acme")


# --- batches of uploads -------------------------------------------------------------------------------


def test_uploads_join_a_batch_and_each_has_its_outcome(api: Api, client: Client) -> None:
    made = [uploaded(api)["upload_id"] for _ in range(2)]
    not_there, unknown = begun(api)["upload_id"], UNKNOWN
    document = {
        "batch_id": "may",
        "total": 2,
        "upload_ids": [made[0], not_there, made[1], unknown],
        "idempotency_keys": ["a", "b", "c", "d"],
        "options": {"outputs": ["stats"]},
    }
    for _ in range(2):  # a repeated request returns the same jobs
        answer = api.post("/v1/batches", document)
        assert answer.status == 202, answer.data
        state = answer.json()
        assert (state["id"], state["total"]) == ("may", 2)
        outcomes = state["outcomes"]
        assert [one.get("job_id") for one in outcomes] == [made[0], None, made[1], None]
        assert outcomes[1]["error"]["code"] == outcomes[3]["error"]["code"] == "not_found"
        assert "PUT" in outcomes[1]["error"]["detail"]
    records = client.list(batch_id="may").records
    assert {record.id for record in records} == set(made)
    assert {output for record in records for output in record.request.outputs} == {"stats"}


@pytest.mark.parametrize(
    "more",
    [
        {"image_uris": ["s3://bucket/key"]},
        {"upload_ids": []},
        {"upload_ids": 5},
        {"upload_ids": [5]},
        {"upload_ids": 501 * [UNKNOWN]},
        {"idempotency_keys": ["a", "b"]},
        {"options": {"colour": "red"}},
    ],
)
def test_a_batch_of_uploads_that_makes_no_sense_is_refused(
    api: Api, client: Client, more: dict[str, Any]
) -> None:
    document = {"upload_ids": [uploaded(api)["upload_id"]], **more}
    api.problem(api.post("/v1/batches", document), 422, "invalid_request")
    assert client.list().records == ()


def test_uploads_join_no_batch_of_another_tenant(acme: Api, other: Api, api: Api) -> None:
    document = {"batch_id": "may", "upload_ids": [uploaded(acme)["upload_id"]]}
    answer = other.post("/v1/batches", document)  # a batch of its own, to which no job belongs
    assert answer.json()["outcomes"][0]["error"]["code"] == "not_found"
    assert acme.post("/v1/batches", document).json()["outcomes"][0]["job_id"]
    batch_id = acme.get(f"/v1/jobs/{document['upload_ids'][0]}").json()["batch_id"]
    stolen = {"batch_id": batch_id, "upload_ids": [uploaded(other)["upload_id"]]}
    assert other.post("/v1/batches", stolen).status in (404, 422)


# --- uploads that come to nothing ---------------------------------------------------------------------


def test_an_upload_that_is_not_submitted_is_removed(
    api: Api, acme: Api, bench: Bench, retention: Retention, s3_server: S3Server
) -> None:
    made = [uploaded(api), uploaded(acme), begun(api)]
    retention.remove_due()
    assert len(objects(s3_server, bench)) == 2
    time_passes(bench, 3 * 3600)
    retention.remove_due()
    assert objects(s3_server, bench) == []
    assert uploads(bench) == []
    api.problem(api.post("/v1/jobs", made[0]["submit"]), 404, "not_found")


def test_a_submitted_upload_stays(
    api: Api, bench: Bench, retention: Retention, s3_server: S3Server
) -> None:
    upload = uploaded(api)
    api.post("/v1/jobs", upload["submit"])
    # Even if the gateway died before it ended the upload
    bench.ledger.redis.zadd(f"{bench.prefix}:uploads", {upload["upload_id"]: 1})
    retention.remove_due()
    assert len(objects(s3_server, bench)) == 1
    assert uploads(bench) == []


def objects(server: S3Server, bench: Bench) -> list[str]:
    layout: StorageLayout = bench.settings.layout
    listed = server.client().list_objects_v2(Bucket=layout.home.bucket, Prefix=layout.home.key)
    return [entry["Key"] for entry in listed.get("Contents", [])]


# --- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "status", "code", "said"),
    [
        ({}, 422, "invalid_request", "bytes"),
        ({"bytes": 0}, 422, "invalid_request", "bytes"),
        ({"bytes": -5}, 422, "invalid_request", "bytes"),
        ({"bytes": "many"}, 422, "invalid_request", "bytes"),
        ({"bytes": 2**70}, 413, "image_too_large", str(LIMIT)),
        ({"bytes": LIMIT + 1}, 413, "image_too_large", str(LIMIT)),
        ({"bytes": 5, "name": "a.png"}, 422, "invalid_request", "name"),
        ({"bytes": 5, "tenant": "a/b"}, 422, "invalid_request", "tenant"),
        ({"bytes": 5, "tenant": 7}, 422, "invalid_request", "tenant"),
    ],
)
def test_an_upload_that_makes_no_sense_is_refused(
    api: Api, document: Any, status: int, code: str, said: str
) -> None:
    assert said in api.problem(api.post("/v1/uploads", document), status, code)


def test_an_upload_needs_a_key_that_submits(stranger: Api, client: Client) -> None:
    stranger.problem(stranger.post("/v1/uploads", {"bytes": 5}), 401, "access_denied")
    reader = stranger.with_key(client.create_api_key(["read"]).text)
    reader.problem(reader.post("/v1/uploads", {"bytes": 5}), 403, "access_denied")


def test_a_tenants_key_begins_uploads_of_its_tenant_only(acme: Api) -> None:
    answer = acme.post("/v1/uploads", {"bytes": 5, "tenant": "other"})
    acme.problem(answer, 403, "access_denied")


@pytest.mark.parametrize("upload_id", [UNKNOWN, "", "../../other", "x" * 5000, "é\x00"])
def test_an_unknown_upload_cannot_be_submitted(api: Api, upload_id: str) -> None:
    api.problem(api.post("/v1/jobs", {"upload_id": upload_id}), 404, "not_found")


@pytest.mark.parametrize(
    "document",
    [
        {"upload_id": 5},
        {"upload_id": None},
        {"upload_id": [UNKNOWN]},
        {"upload_id": UNKNOWN, "image_uri": "s3://bucket/key"},
        {"upload_id": UNKNOWN, "image_uri": 5},
        {"upload_id": UNKNOWN, "colour": "red"},
    ],
)
def test_a_submission_of_an_upload_that_makes_no_sense_is_refused(api: Api, document: Any) -> None:
    api.problem(api.post("/v1/jobs", document), 422, "invalid_request")


def test_another_tenants_upload_is_unknown(acme: Api, other: Api, api: Api) -> None:
    upload = uploaded(acme)
    unknown = other.post("/v1/jobs", upload["submit"])
    said = other.problem(unknown, 404, "not_found").replace(upload["upload_id"], UNKNOWN)
    answer = other.post("/v1/jobs", {"upload_id": UNKNOWN})
    assert other.problem(answer, 404, "not_found") == said
    # Nor once it is a job
    assert acme.post("/v1/jobs", upload["submit"]).status == 202
    other.problem(other.post("/v1/jobs", upload["submit"]), 404, "not_found")


def test_the_id_of_another_kind_of_job_is_no_upload(api: Api, bench: Bench) -> None:
    bench.submit("a")
    uri = bench.record("a").request.image_uri
    job = api.post("/v1/jobs", {"image_uri": uri}).json()
    api.problem(api.post("/v1/jobs", {"upload_id": job["id"]}), 404, "not_found")


def test_before_anything_is_uploaded_it_cannot_be_submitted(api: Api, client: Client) -> None:
    upload = begun(api, len(png()))
    assert "PUT" in api.problem(api.post("/v1/jobs", upload["submit"]), 409, "not_found")
    assert client.list().records == ()
    put(upload, png())
    assert api.post("/v1/jobs", upload["submit"]).status == 202


@pytest.mark.parametrize(
    ("size", "status", "code"),
    [(0, 422, "invalid_request"), (LIMIT + 1, 413, "image_too_large")],
)
def test_an_object_that_came_another_way_is_looked_at(
    api: Api, client: Client, size: int, status: int, code: str
) -> None:
    upload = begun(api)
    place = client.session.layout.job(upload["upload_id"]).upload
    client.objects.put(place, bytes(size), "image/png")
    api.problem(api.post("/v1/jobs", upload["submit"]), status, code)


def test_an_upload_can_be_submitted_for_two_hours(api: Api, bench: Bench) -> None:
    upload, late = uploaded(api), uploaded(api)
    time_passes(bench, 2 * 3600 - 60)
    assert api.post("/v1/jobs", upload["submit"]).status == 202
    time_passes(bench, 61)
    api.problem(api.post("/v1/jobs", late["submit"]), 410, "expired")


def test_while_the_store_is_away_the_upload_waits(
    api: Api, client: Client, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = uploaded(api)
    with monkeypatch.context() as away:
        away.setattr("maskq_gateway.api.store.Store.head", _away)
        answer = api.post("/v1/jobs", upload["submit"])
    api.problem(answer, 503, "store_unavailable")
    assert answer.headers["Retry-After"]
    assert client.list().records == ()
    assert api.post("/v1/jobs", upload["submit"]).status == 202


async def _away(*_: object) -> None:
    from maskq.errors import StoreUnavailable

    raise StoreUnavailable("S3 is away")
