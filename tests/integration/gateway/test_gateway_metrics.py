"""The deployment's metrics: who may read them, and that their numbers are those of the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import urllib3
from integration.worker.test_pipeline import Bench
from prometheus_client.parser import text_string_to_metric_families
from support.http_api import Api
from support.waiting import until

from maskq import Client
from maskq.ledger import calls
from maskq.ledger.calls.metrics import deployment_metrics
from maskq.telemetry.deployment import SERIES, deployment_text
from maskq.telemetry.server import MetricsServer
from maskq_gateway.metrics import metrics_port
from maskq_gateway.settings import GatewaySettings
from maskq_standalone.ports import free_port

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def values(text: str) -> Values:
    """Every value by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Values, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


@pytest.mark.parametrize("scopes", [["submit", "read"], ["submit"], ["read"]])
def test_a_key_without_scope_admin_is_refused(
    stranger: Api, client: Client, scopes: list[str]
) -> None:
    assert stranger.get("/metrics").status == 401
    key = client.create_api_key(scopes).text
    assert stranger.with_key(key).get("/metrics").status == 403


def test_the_numbers_are_those_of_the_run(stranger: Api, client: Client, bench: Bench) -> None:
    # Given two jobs that succeed, one that fails, one that was canceled, and two that wait
    admin = stranger.with_key(client.create_api_key(["admin"]).text)
    for name in ("a", "b"):
        bench.submit(name)
        bench.pipeline.run("smallest")
    client.submit("s3://maskq/nowhere.png")
    bench.pipeline.run("smallest")
    bench.submit("c")
    client.get("c").cancel()
    bench.submit("d")
    bench.submit("e")
    # When
    answer = admin.get("/metrics")
    # Then
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = values(answer.data.decode())
    jobs = {
        dict(labels)["status"]: count
        for (name, labels), count in found.items()
        if name == "maskq_jobs_total" and count
    }
    assert jobs == {"succeeded": 2, "failed": 1, "canceled": 1}
    assert value(found, "maskq_queue_depth", model="smallest", priority="normal") == 2
    assert value(found, "maskq_queue_depth", model="smallest", priority="high") == 0
    assert value(found, "maskq_jobs_queued", model="smallest") == 2
    assert value(found, "maskq_webhooks_dead") == 0
    assert value(found, "maskq_webhooks_overdue_seconds") == 0
    # Counters begin at 0: Prometheus sees the first failure of a kind as an increase.
    failed = {"model": "smallest", "status": "failed"}
    assert value(found, "maskq_jobs_total", **failed, code="worker_lost") == 0
    assert value(found, "maskq_retries_total", code="worker_lost") == 0


def test_every_series_has_the_name_type_and_labels_of_the_table(
    client: Client, bench: Bench
) -> None:
    bench.submit("a")
    client.session.run(calls.sweep(lease_s=15))
    list(client.events(since="0", group="billing", idle=0.1))
    text = deployment_text(client.session.run(deployment_metrics())).decode()
    families = {one.name: one for one in text_string_to_metric_families(text)}
    for series in SERIES:
        family = families.pop(series.name.removesuffix("_total"))
        assert (family.type, family.documentation) == (series.kind, series.help)
        assert all(set(sample.labels) == set(series.labels) for sample in family.samples)
    assert families == {}


def test_an_own_port_needs_no_key(settings: GatewaySettings, client: Client) -> None:
    chosen = settings.model_copy(update={"metrics_port": free_port()})
    with metrics_port(chosen, client):
        url = f"http://127.0.0.1:{chosen.metrics_port}"
        assert b"maskq_ledger_entries" in urllib3.request("GET", f"{url}/metrics").data
        assert urllib3.request("GET", f"{url}/").status == 404
    with pytest.raises(urllib3.exceptions.HTTPError):
        urllib3.request("GET", f"{url}/metrics", retries=False)
    with metrics_port(settings, client):
        pass  # no port is set


def test_a_port_that_is_taken_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    first = MetricsServer("127.0.0.1", free_port(), lambda: b"first\n")
    first.start()
    assert first.port
    second = MetricsServer("127.0.0.1", first.port, lambda: b"second\n")
    second.start()
    assert second.port is None
    assert "cannot be listened at" in caplog.text
    for server in (first, second):
        server.stop()


def test_while_redis_is_away_the_answer_is_503(environment: dict[str, str]) -> None:
    with Client(redis_url=f"redis://127.0.0.1:{free_port()}/0") as away:
        server = MetricsServer(
            "127.0.0.1",
            free_port(),
            lambda: deployment_text(away.session.run(deployment_metrics())),
        )
        server.start()
        answer = urllib3.request("GET", f"http://127.0.0.1:{server.port}/metrics", timeout=30)
        server.stop()
    assert answer.status == 503
    assert b"Redis" in answer.data


def test_the_command_prints_or_serves_them(environment: dict[str, str], bench: Bench) -> None:
    bench.submit("a")
    env = os.environ | environment
    command = [sys.executable, "-m", "maskq", "metrics"]
    once = subprocess.run([*command, "--once"], env=env, capture_output=True, text=True, timeout=60)
    assert (once.returncode, once.stderr) == (0, "")
    assert value(values(once.stdout), "maskq_queue_depth", model="smallest", priority="normal") == 1
    port = free_port()
    with subprocess.Popen(
        [*command, "--port", str(port)], env=env, stderr=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stderr is not None
        assert serving.stderr.readline() == f"metrics at http://127.0.0.1:{port}/metrics\n"
        answer = urllib3.request("GET", f"http://127.0.0.1:{port}/metrics")
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(timeout=20) == 0
    served = values(answer.data.decode())
    of_process = {name for name in served if name[0].startswith("process_")}
    assert served.keys() - of_process == values(once.stdout).keys()
    assert value(served, "process_resident_memory_bytes") > 10e6


def test_a_process_that_delivers_webhooks_answers_as_well(environment: dict[str, str]) -> None:
    port = free_port()
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    env = os.environ | environment | {"MASKQ_METRICS_PORT": str(port)}
    command = [sys.executable, "-m", "maskq", "worker", "--role", "webhooks"]
    with subprocess.Popen(command, env=env | {"MASKQ_WEBHOOK_SECRET": secret}) as delivering:
        try:
            found = until(lambda: scraped(port))
            assert value(found, "process_start_time_seconds") > time.time() - 300
        finally:
            delivering.terminate()
        assert delivering.wait(timeout=20) == 0


def scraped(port: int) -> Values | None:
    try:
        answer = urllib3.request("GET", f"http://127.0.0.1:{port}/metrics", retries=False)
    except urllib3.exceptions.HTTPError:
        return None
    return values(answer.data.decode())
