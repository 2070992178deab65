"""`maskq doctor` names each planted fault, and nothing else. Every fault is a real one."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support import acl
from support.acl_stack import IamServer
from support.answering import answering
from support.doctor import MODEL, Report, doctor, join
from support.ledger_harness import LedgerHarness
from support.redis_servers import TunedRedis, admin, follow, running
from support.s3_front import Rule, S3Front

from maskq.ledger.calls import models
from maskq_standalone.ports import free_port
from maskq_standalone.servers.s3 import S3Server

pytestmark = pytest.mark.usefixtures("ledger")


def only(report: Report, area: str, name: str, do: str) -> Mapping[str, str]:
    """The only trouble there is; it says what to do."""
    assert report.in_trouble == {(area, name)}
    assert report.code == 1
    found = report.finding(area, name)
    assert do in found["do"]
    return found


def test_all_is_well_without_a_fault() -> None:
    report = doctor()
    assert {one["level"] for one in report.findings} == {"ok"}, report.findings
    assert (report.code, report.role) == (0, "worker")
    areas = {one["area"] for one in report.findings}
    assert {"settings", "Redis", "object store", "deployment", "weights", "GPU"} <= areas


# --- Redis --------------------------------------------------------------------------------------------


@pytest.fixture
def tuned(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TunedRedis]:
    """A server of the test's own, with its lines of configuration, in place of the one that is well."""
    server = TunedRedis(tmp_path / "redis", "maxmemory 100mb", *request.param)
    with running(server):
        monkeypatch.setenv("MASKQ_REDIS_URL", server.url)
        yield server


def of_redis(report: Report) -> set[tuple[str, str]]:
    return {(area, name) for area, name in report.in_trouble if area == "Redis"}


@pytest.mark.parametrize("tuned", [["maxmemory-policy allkeys-lru"]], indirect=True)
def test_redis_that_evicts_keys(tuned: TunedRedis) -> None:
    report = doctor()
    assert of_redis(report) == {("Redis", "memory policy")}
    found = report.finding("Redis", "memory policy")
    assert "allkeys-lru" in found["found"]
    assert "noeviction" in found["do"]
    assert report.code == 1


@pytest.mark.parametrize("tuned", [["appendonly no"]], indirect=True)
def test_redis_without_aof(tuned: TunedRedis) -> None:
    report = doctor()
    assert of_redis(report) == {("Redis", "durability")}
    assert "appendonly yes" in report.finding("Redis", "durability")["do"]


@pytest.mark.parametrize("tuned", [["appendfsync no"]], indirect=True)
def test_redis_that_leaves_syncing_to_the_system(tuned: TunedRedis) -> None:
    assert ("Redis", "durability") in doctor().of_level("warning")


@pytest.fixture
def roles(well_redis: TunedRedis, key_prefix: str) -> Iterator[TunedRedis]:
    acl.create(well_redis.url, key_prefix)
    yield well_redis
    with admin(well_redis) as client:
        for user in acl.users():
            client.acl_deluser(user) if user != "default" else None


def test_redis_user_without_a_command(roles: TunedRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    with admin(roles) as client:
        client.execute_command("ACL", "SETUSER", "worker", "-xadd")
    monkeypatch.setenv("MASKQ_REDIS_URL", acl.url_of("worker", roles.url))
    found = only(doctor(), "Redis", "rights", "users.acl")
    assert "+xadd" in found["found"]


def test_a_shipped_user_is_not_in_trouble_and_what_it_may_not_see_is_not_ok(
    roles: TunedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_REDIS_URL", acl.url_of("worker", roles.url))
    report = doctor()
    assert (report.code, report.in_trouble) == (0, set())
    unseen = {("Redis", name) for name in ("durability", "memory policy", "memory")}
    assert report.of_level("unknown") == unseen
    assert "CONFIG GET" in report.finding("Redis", "durability")["do"]


@pytest.mark.parametrize("user", ["publisher", "gateway", "reader"])
def test_the_redis_user_names_the_role(
    roles: TunedRedis, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_REDIS_URL", acl.url_of(user, roles.url))
    report = doctor()
    assert (report.role, report.in_trouble) == (user, set())
    assert {("deployment", "default model"), ("deployment", "workers")} <= report.of_level("ok")


def test_redis_refuses_the_password(
    well_redis: TunedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = well_redis.url.replace(well_redis.password, "not-the-password")
    monkeypatch.setenv("MASKQ_REDIS_URL", url)
    found = only(doctor(), "Redis", "reachable", "password")
    assert "not-the-password" not in json.dumps(dict(found))


def test_redis_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    report = doctor()
    only(report, "Redis", "reachable", "MASKQ_REDIS_URL")
    assert {("Redis", "server"), ("deployment", "workers")} <= report.of_level("unknown")


def test_redis_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    hello = b"*4\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n"
    with answering({b"HELLO": hello, b"EVAL": b"-ERR unknown\r\n"}) as port:
        monkeypatch.setenv("MASKQ_REDIS_URL", f"redis://127.0.0.1:{port}")
        found = only(doctor(), "Redis", "version", "7.0 or newer")
    assert "6.2.14" in found["found"]


def test_redis_is_a_replica(
    well_redis: TunedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = TunedRedis(tmp_path / "replica", "maxmemory 100mb")
    with running(replica):
        follow(replica, well_redis)
        monkeypatch.setenv("MASKQ_REDIS_URL", replica.url)
        assert ("Redis", "primary") in doctor().in_trouble


# --- the object store ---------------------------------------------------------------------------------


def test_the_store_does_not_know_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODY")
    report = doctor()
    assert report.in_trouble == {("object store", "reachable"), ("locations of jobs", "reading")}
    assert "AWS_ACCESS_KEY_ID" in report.finding("object store", "reachable")["do"]


def test_the_bucket_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_S3_BUCKET", "nobody-made-it")
    found = only(doctor(), "object store", "reachable", "MASKQ_S3_BUCKET")
    assert "nobody-made-it" in found["found"]


def test_the_store_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_S3_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    report = doctor()
    assert ("object store", "reachable") in report.in_trouble
    assert ("object store", "rights") in report.of_level("unknown")


class Narrow(IamServer):
    """A store whose worker has a policy of the test's own."""

    def __init__(self, directory: Path, policies: Path) -> None:
        self._policies = policies
        super().__init__(
            directory,
            access_key_id="TESTKEY",
            secret_access_key=secrets.token_urlsafe(),
            bucket="maskq",
        )

    def child_environment(self) -> Mapping[str, str]:
        return {**super().child_environment(), "POLICIES": str(self._policies)}


@pytest.mark.parametrize(
    ("denied", "name"), [("s3:PutObject", "writing"), ("s3:DeleteObject", "deleting")]
)
def test_the_policy_lacks_a_right(
    denied: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = {"s3:GetObject", "s3:ListBucket", "s3:PutObject", "s3:DeleteObject"} - {denied}
    policy = {"Effect": "Allow", "Action": sorted(allowed), "Resource": "*"}
    (tmp_path / "policies").mkdir()
    text = json.dumps({"Version": "2012-10-17", "Statement": [policy]})
    (tmp_path / "policies" / "worker.json").write_text(text)
    server = Narrow(tmp_path / "s3", tmp_path / "policies")
    with running(server):
        given = {
            "MASKQ_S3_ENDPOINT_URL": server.endpoint_url,
            "MASKQ_S3_BUCKET": "maskq",
            "MASKQ_ALLOWED_LOCATIONS": "s3://maskq",
            **server.as_role("worker"),
        }
        for variable, value in given.items():
            monkeypatch.setenv(variable, value)
        only(doctor(), "object store", name, "deploy/s3")


@pytest.fixture
def front(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Front]:
    with S3Front(s3_server.port) as front:
        monkeypatch.setenv("MASKQ_S3_ENDPOINT_URL", front.url)
        yield front


def test_the_store_ignores_if_none_match(front: S3Front) -> None:
    front.rules = [Rule("^PUT ", "unconditional")]
    found = only(doctor(), "object store", "conditional writes", "If-None-Match")
    assert "ignores" in found["found"]


def test_the_store_does_not_support_conditions(front: S3Front) -> None:
    front.rules = [Rule("^PUT ", status=501, code="NotImplemented")]
    only(doctor(), "object store", "conditional writes", "If-None-Match")


@pytest.mark.parametrize(("offset_s", "level"), [(-3000, "trouble"), (120, "warning")])
def test_the_stores_clock_is_off(front: S3Front, offset_s: int, level: str) -> None:
    front.clock_offset_s = offset_s
    report = doctor()
    assert report.of_level(level) == {("object store", "clock")}
    assert "clock" in report.finding("object store", "clock")["do"]


def test_the_store_refuses_the_time_of_requests(front: S3Front) -> None:
    front.rules = [Rule("", status=403, code="RequestTimeTooSkewed")]
    report = doctor()
    assert "clock" in report.finding("object store", "reachable")["do"]


def test_doctor_leaves_nothing_in_the_store(s3_server: S3Server, key_prefix: str) -> None:
    doctor()
    listed = s3_server.client().list_objects_v2(Bucket=s3_server.bucket, Prefix=f"{key_prefix}/")
    assert listed.get("Contents", []) == []


def test_a_location_of_jobs_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_ALLOWED_LOCATIONS", "s3://photos-of-nobody/in")
    only(doctor(), "locations of jobs", "reading", "MASKQ_ALLOWED_LOCATIONS")


# --- settings -----------------------------------------------------------------------------------------


def test_a_setting_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_S3_BUKET", "maskq")
    report = doctor()
    assert ("settings", "names") in report.in_trouble
    found = report.finding("settings", "names")
    assert "MASKQ_S3_BUKET" in found["found"]
    assert "did you mean MASKQ_S3_BUCKET?" in found["found"]
    assert report.code == 1


def test_a_setting_is_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_LEASE_S", "soon")
    report = doctor()
    assert report.in_trouble == {("settings", "values")}
    assert "MASKQ_LEASE_S" in report.finding("settings", "values")["found"]


def test_settings_contradict_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_MAX_QUEUED", "10")
    monkeypatch.setenv("MASKQ_MAX_QUEUED_PER_TENANT", "20")
    monkeypatch.setenv("MASKQ_OUTPUT_RETENTION_S", "60")
    expected = {("settings", "limits"), ("settings", "retention")}
    assert doctor().of_level("warning") == expected


def test_a_webhook_secret_is_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_WEBHOOK_SECRET", "guess")
    only(doctor(), "webhooks", "secret", "maskq webhooks secret")


# --- weights and GPU ----------------------------------------------------------------------------------


def test_the_weights_were_altered(pulled: Path) -> None:
    weights = pulled / "model.safetensors"
    body = bytearray(weights.read_bytes())
    body[-1] ^= 1
    weights.write_bytes(body)
    found = only(doctor(), "weights", "digests", "maskq weights pull")
    assert "model.safetensors" in found["found"]


def test_the_weights_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_MODEL", "lab/never-pulled")
    monkeypatch.setenv("MASKQ_DEFAULT_MODEL", MODEL)
    only(doctor(), "weights", "presence", "maskq weights pull lab/never-pulled")


def test_a_gpu_is_wanted_and_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_DEVICE", "cuda")
    monkeypatch.setenv("PATH", "/nowhere")  # without nvidia-smi, also where there is a GPU
    (found,) = [one for one in doctor().findings if one["area"] == "GPU"]
    assert found["level"] == "trouble"
    assert "driver" in found["do"]


# --- the deployment -----------------------------------------------------------------------------------


def test_no_worker_for_the_default_model(ledger: LedgerHarness) -> None:
    ledger.ledger.run(models.leave(join(ledger)))
    found = only(doctor("--role", "publisher"), "deployment", "default model", "maskq worker")
    assert MODEL in found["found"]


def test_the_default_model_was_never_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_DEFAULT_MODEL", "lab/other")
    only(doctor(), "deployment", "default model", "maskq models default")


def test_two_models_under_one_name(ledger: LedgerHarness) -> None:
    join(ledger, "host:2", labels_digest="b", revision="d" * 40)
    report = doctor()
    assert report.in_trouble == {("deployment", "revisions")}


def test_a_revision_of_its_own_is_told(ledger: LedgerHarness) -> None:
    join(ledger, "host:2", revision="d" * 40)
    report = doctor()
    expected = {("deployment", "revisions"), ("weights", "other workers")}
    assert (report.code, report.of_level("warning")) == (0, expected)


def test_no_worker_sweeps(ledger: LedgerHarness) -> None:
    ledger.redis.hset(ledger.key("sweeper"), "swept_ms", ledger.now_ms() - 60_000)
    only(doctor(), "deployment", "sweeper", "logs")


def test_nobody_posts_webhooks(ledger: LedgerHarness) -> None:
    ledger.submit(model=MODEL, webhook="https://hooks.example/x", webhook_events=["job.queued"])
    only(doctor(), "deployment", "webhooks", "--role webhooks")


def test_the_gateway_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_GATEWAY_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MASKQ_API_KEY", "maskq_x_y")
    only(doctor(), "gateway", "reachable", "MASKQ_GATEWAY_URL")


def test_a_client_needs_the_gateways_url(monkeypatch: pytest.MonkeyPatch) -> None:
    only(doctor("--role", "client"), "gateway", "reachable", "MASKQ_API_KEY")


# --- the command --------------------------------------------------------------------------------------


def test_a_check_that_fails_is_told_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the check is broken")

    monkeypatch.setattr("maskq_worker.doctor.gpu.WorkerSettings.load", broken)
    report = doctor()
    assert ("GPU", "check") in report.of_level("unknown")
    assert ("Redis", "reachable") in report.of_level("ok")
