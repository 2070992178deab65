"""deploy/helm/maskq rendered by helm: valid by schemas, and what it promises. `make helm-test`."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import sys
from typing import Any

import pytest
import yaml
from charts import (
    CASES,
    CHART,
    KUBERNETES,
    RELEASE,
    ROOT,
    Document,
    check,
    containers,
    environment,
    helm,
    of_kind,
    rendered,
    workloads,
)

EVERY_CASE = pytest.mark.parametrize("case", CASES)
SECRETS_OF = {
    "worker": "worker",
    "gateway": "gateway",
    "sqs": "gateway",
    "webhooks": "webhooks",
    "redis": "redis-users",
}
ONE_GPU = "nvidia.com/gpu"
COMPONENT = "app.kubernetes.io/component"


def container_s(drain_s: float) -> float:
    """What the product itself says of the time that a container needs."""
    path = ROOT / "api_client" / "maskq" / "process" / "stop_times.py"
    spec = importlib.util.spec_from_file_location("stop_times", path)
    assert spec
    assert spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules["stop_times"] = module
    spec.loader.exec_module(module)
    return module.StopTimes(drain_s).container_s


@EVERY_CASE
def test_helm_lints_it(case: str) -> None:
    said = helm("lint", CASES[case], "--strict")
    assert said.returncode == 0, said.stdout + said.stderr


@EVERY_CASE
@pytest.mark.parametrize("version", KUBERNETES)
def test_every_document_is_valid(case: str, version: str) -> None:
    for document in rendered(case):
        check(document, version)


def test_a_misspelled_field_would_be_seen() -> None:
    documents = rendered("everything")
    for kind, path in {
        "Deployment": ("spec", "template", "spec", "containers", 0),
        "NetworkPolicy": ("spec",),
        "ScaledObject": ("spec",),
        "ServiceMonitor": ("spec", "endpoints", 0),
        "PrometheusRule": ("spec", "groups", 0, "rules", 0),
    }.items():
        document = json.loads(json.dumps(of_kind(documents, kind)[0]))
        part = document
        for step in path:
            part = part[step]
        part["misspelled"] = 1
        with pytest.raises(Exception, match=r"misspelled|does not have"):
            check(document, KUBERNETES[-1])


@EVERY_CASE
def test_a_pod_has_the_time_that_its_drain_needs(case: str) -> None:
    values = CASES[case]
    for name, template in workloads(rendered(case)):
        (container,) = template["spec"]["containers"]
        if "MASKQ_DRAIN_S" in environment(container):
            pool = template["metadata"]["labels"]["maskq/pool"]
            own = (values.get("pools", {}).get(pool) or {}).get("drainSeconds")
            drain = own if own is not None else values.get("drainSeconds", 30)
            assert environment(container)["MASKQ_DRAIN_S"] == str(drain), name
            assert template["spec"]["terminationGracePeriodSeconds"] == container_s(drain), name
        assert template["spec"]["terminationGracePeriodSeconds"] >= 60


@EVERY_CASE
def test_a_container_has_no_more_rights_than_it_needs(case: str) -> None:
    for name, template in workloads(rendered(case)):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for container in containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"], name
            assert container["resources"]["requests"], name


@EVERY_CASE
def test_no_service_puts_variables_into_a_pod(case: str) -> None:
    """A Service called maskq-gateway would set MASKQ_GATEWAY_PORT, which maskq refuses."""
    for name, template in workloads(rendered(case)):
        assert template["spec"]["enableServiceLinks"] is False, name


@EVERY_CASE
def test_a_pod_mounts_the_secret_of_its_role_alone(case: str) -> None:
    existing = CASES[case].get("secrets", {}).get("existing", {})
    for name, template in workloads(rendered(case)):
        component = template["metadata"]["labels"]["app.kubernetes.io/component"]
        mounted = [
            volume["secret"]["secretName"]
            for volume in template["spec"]["volumes"]
            if "secret" in volume
        ]
        role = SECRETS_OF.get(component)
        wanted = [existing.get(role) or f"{RELEASE}-{role}"] if role else []
        assert mounted == wanted, name
        # OpenTelemetry reads this one from nowhere else.
        from_secrets = {
            entry["name"]
            for container in containers(template)
            for entry in container.get("env", [])
            if "valueFrom" in entry
        }
        assert from_secrets <= {"OTEL_EXPORTER_OTLP_HEADERS"}, name


@EVERY_CASE
def test_a_variable_is_a_setting_of_maskq(case: str) -> None:
    text = (ROOT / "docs" / "reference" / "settings.md").read_text()
    known = set(re.findall(r"^\| `(MASKQ_\w+)`", text, re.MULTILINE))
    known |= {"MASKQ_METRICS_PORT", "MASKQ_METRICS_HOST"}
    for name, template in workloads(rendered(case)):
        for container in containers(template):
            used = {one for one in environment(container) if one.startswith("MASKQ_")}
            assert {one.removesuffix("_FILE") for one in used} - known - {
                "MASKQ_HEALTH"
            } == set(), name
            assert not used & {"MASKQ_REDIS_URL", "MASKQ_WEBHOOK_SECRET", "MASKQ_TRIGGER_TOKENS"}


def made_secrets() -> dict[str, dict[str, str]]:
    return {
        one["metadata"]["name"]: one["stringData"] for one in of_kind(rendered("trial"), "Secret")
    }


def test_the_redis_users_are_those_of_the_repository() -> None:
    secrets = {
        one["metadata"]["name"]: one["stringData"] for one in of_kind(rendered("trial"), "Secret")
    }
    users = secrets[f"{RELEASE}-redis-users"]
    lines = users["users.acl"].splitlines()
    template = (ROOT / "deploy" / "redis" / "users.acl").read_text().splitlines()
    assert len(lines) == len(template) + 1
    for line, before in zip(lines, template, strict=False):
        user = before.split()[1]
        assert line == before.replace(">CHANGE-ME", f">{users.get(user)}")
    assert lines[-1].startswith(f"user health on >{users['health']} ")
    passwords = [password for name, password in users.items() if name != "users.acl"]
    assert len(set(passwords)) == len(passwords)
    assert all(len(password) >= 32 for password in passwords)
    for role in ("worker", "gateway", "webhooks"):
        url = f"redis://{role}:{users[role]}@{RELEASE}-redis:6379/0"
        assert secrets[f"{RELEASE}-{role}"]["redis-url"] == url


def test_a_signing_secret_is_one_that_maskq_takes() -> None:
    secrets = {
        one["metadata"]["name"]: one["stringData"] for one in of_kind(rendered("trial"), "Secret")
    }
    signing = secrets[f"{RELEASE}-webhooks"]["webhook-secret"]
    assert len(base64.b64decode(signing.removeprefix("whsec_"), validate=True)) >= 24
    assert len(secrets[f"{RELEASE}-gateway"]["trigger-tokens"]) >= 16


def test_with_existing_secrets_the_chart_makes_none() -> None:
    assert not of_kind(rendered("own servers, existing secrets"), "Secret")


@EVERY_CASE
def test_what_selects_pods_selects_some(case: str) -> None:
    documents = rendered(case)
    labels = [template["metadata"]["labels"] for _, template in workloads(documents)]

    def found(selector: dict[str, str]) -> list[dict[str, str]]:
        return [one for one in labels if selector.items() <= one.items()]

    for document in of_kind(documents, "Service"):
        assert found(document["spec"]["selector"]), document["metadata"]["name"]
    for document in of_kind(documents, "PodDisruptionBudget"):
        assert len(found(document["spec"]["selector"]["matchLabels"])) == 1
    for document in of_kind(documents, "Deployment", "StatefulSet"):
        assert len(found(document["spec"]["selector"]["matchLabels"])) == 1
    restricted = [
        one
        for document in of_kind(documents, "NetworkPolicy")
        for one in found(document["spec"]["podSelector"]["matchLabels"])
    ]
    assert sorted(map(str, restricted)) == sorted(map(str, labels))  # each pod by one policy
    deployments = {one["metadata"]["name"] for one in of_kind(documents, "Deployment")}
    for document in of_kind(documents, "ScaledObject", "HorizontalPodAutoscaler"):
        assert document["spec"]["scaleTargetRef"]["name"] in deployments


@EVERY_CASE
def test_a_probe_s_port_and_a_service_s_port_exist(case: str) -> None:
    documents = rendered(case)
    open_ports = {
        port["name"]
        for _, template in workloads(documents)
        for container in containers(template)
        for port in container.get("ports", [])
    }
    for document in of_kind(documents, "Service"):
        assert {port["targetPort"] for port in document["spec"]["ports"]} <= open_ports
    for _, template in workloads(documents):
        for container in template["spec"]["containers"]:
            own = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container.get(probe, {}).get("httpGet")
                assert asked is None or asked["port"] in own


@EVERY_CASE
def test_every_role_says_whether_it_is_well(case: str) -> None:
    for name, template in workloads(rendered(case)):
        component = template["metadata"]["labels"]["app.kubernetes.io/component"]
        (container,) = template["spec"]["containers"]
        if component not in ("weights", "redis"):
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys(), name
            assert environment(container)["MASKQ_HEALTH_FILE"] in str(
                container["livenessProbe"]
            ) or (component == "gateway")


def policy(case: str, component: str) -> Document:
    (found,) = (
        one["spec"]
        for one in of_kind(rendered(case), "NetworkPolicy")
        if one["metadata"]["name"] == f"{RELEASE}-{component}"
    )
    return found


def test_a_worker_reaches_redis_the_store_and_public_https_alone() -> None:
    rules = policy("everything", "worker")["egress"]
    ports = [sorted(port["port"] for port in rule["ports"]) for rule in rules]
    assert ports == [[53, 53], [6379], [4318], [443], [443]]
    assert rules[1]["to"] == [{"ipBlock": {"cidr": "10.1.2.3/32"}}]
    block = rules[4]["to"][0]["ipBlock"]
    assert {"10.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16"} <= set(block["except"])
    (metrics,) = policy("everything", "worker")["ingress"]
    assert metrics["ports"] == [{"protocol": "TCP", "port": 9464, "endPort": 9465}]
    assert not policy("trial", "worker")["ingress"]


def test_every_role_sends_its_traces_to_the_collector_that_the_values_name() -> None:
    for _, template in workloads(rendered("everything")):
        (container,) = template["spec"]["containers"]
        if template["metadata"]["labels"][COMPONENT] == "weights":
            continue  # it fetches a checkpoint, and runs nothing of maskq's queue
        set_here = environment(container)
        assert set_here["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector.monitoring.svc:4318"
        assert set_here["OTEL_TRACES_SAMPLER_ARG"] == "0.1"
        (headers,) = (one for one in container["env"] if "valueFrom" in one)
        assert headers["name"] == "OTEL_EXPORTER_OTLP_HEADERS"
        assert headers["valueFrom"] == {"secretKeyRef": {"name": "otlp", "key": "headers"}}
        egress = policy("everything", template["metadata"]["labels"][COMPONENT])["egress"]
        assert {"ports": [{"protocol": "TCP", "port": 4318}]} in egress
    for _, template in workloads(rendered("trial")):
        for container in containers(template):
            assert not any(one["name"].startswith("OTEL_") for one in container.get("env", []))


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("https://otlp.example/v1", 443), ("http://collector", 80), ("https://[::1]:4319/x", 4319)],
)
def test_the_collector_s_port_is_the_one_that_is_opened(endpoint: str, port: int) -> None:
    said = helm("template", {"redis": {"deploy": True}, "traces": {"endpoint": endpoint}})
    documents = tuple(yaml.safe_load_all(said.stdout))
    (egress,) = (
        one["spec"]["egress"]
        for one in of_kind(documents, "NetworkPolicy")
        if one["metadata"]["name"] == f"{RELEASE}-gateway"
    )
    assert {"ports": [{"protocol": "TCP", "port": port}]} in egress


def test_a_deliverer_of_webhooks_reaches_no_private_network_and_not_the_store() -> None:
    rules = policy("everything", "webhooks")["egress"]
    assert [rule.get("to") for rule in rules[:2]] == [None, [{"ipBlock": {"cidr": "10.1.2.3/32"}}]]
    (last,) = rules[3:]
    assert "10.0.0.0/8" in last["to"][0]["ipBlock"]["except"]


def test_the_redis_of_the_chart_goes_nowhere() -> None:
    assert not policy("trial", "redis").get("egress")
    assert len(policy("trial", "redis")["ingress"]) == 1


def test_a_checkpoint_is_fetched_once_and_its_pods_wait_for_it() -> None:
    documents = rendered("everything")
    (job,) = of_kind(documents, "Job")
    script = job["spec"]["template"]["spec"]["containers"][0]["command"][-1]
    assert script.count("maskq weights pull") == 1
    (marker,) = re.findall(r"touch (\S+)", script)
    waiting = [
        template["spec"]["initContainers"][0]["command"][-1]
        for _, template in workloads(documents)
        if template["spec"].get("initContainers")
    ]
    assert len(waiting) == 2
    assert all(f"test -f {marker};" in command for command in waiting)
    assert job["metadata"]["name"].endswith(marker.rpartition("/.")[2])
    assert not of_kind(rendered("trial"), "Job", "PersistentVolumeClaim")


def test_each_process_of_a_pod_has_a_metrics_port_that_is_scraped() -> None:
    documents = rendered("everything")
    opened = {
        template["metadata"]["labels"].get("maskq/pool"): [
            (port["name"], port["containerPort"])
            for port in template["spec"]["containers"][0]["ports"]
        ]
        for name, template in workloads(documents)
        if "-worker-" in name
    }
    assert opened["dpt"] == [("metrics", 9464), ("metrics-1", 9465)]  # two processes on its GPU
    assert opened["cpu"] == [("metrics", 9464)]
    (service,) = (
        one["spec"] for one in of_kind(documents, "Service") if one["spec"].get("clusterIP")
    )
    (monitor,) = of_kind(documents, "ServiceMonitor")
    names = [port["name"] for port in service["ports"]]
    assert names == [name for name, _ in opened["dpt"]]
    assert [one["port"] for one in monitor["spec"]["endpoints"]] == names


def test_the_alerts_are_those_of_the_repository_with_the_parameters_of_the_values() -> None:
    (rule,) = of_kind(rendered("everything"), "PrometheusRule")
    written = (ROOT / "deploy" / "prometheus" / "rules" / "maskq.yml").read_text()
    expected = yaml.safe_load(written.replace("> 900", "> 60"))
    assert rule["spec"] == expected
    assert "> 900" in written


def test_a_parameter_that_the_alerts_do_not_have_is_refused() -> None:
    alerts = {"enabled": True, "parameters": {"queue_oldest": 60}}
    values = CASES["trial"] | {"metrics": {"enabled": True, "prometheusRule": alerts}}
    said = helm("template", values)
    assert said.returncode != 0
    assert "parameters.queue_oldest: no such parameter" in said.stderr


def test_a_pool_asks_for_the_resource_that_it_names() -> None:
    found = {
        template["metadata"]["labels"].get("maskq/pool"): template["spec"]["containers"][0]
        for _, template in workloads(rendered("everything"))
    }
    assert found["dpt"]["resources"]["limits"] == {"memory": "32Gi", ONE_GPU: 1}
    assert found["slice"]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1
    assert ONE_GPU not in found["slice"]["resources"]["limits"]
    assert ONE_GPU not in found["cpu"]["resources"]["limits"]
    assert found["dpt"]["command"] == [
        "maskq",
        "worker",
        "--gpus",
        "all",
        "--processes-per-gpu",
        "2",
    ]
    assert found["cpu"]["command"] == ["maskq", "worker"]


def test_an_autoscaled_pool_leaves_its_number_to_the_autoscaler() -> None:
    documents = rendered("everything")
    scaled = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"]
        for one in of_kind(documents, "ScaledObject", "HorizontalPodAutoscaler")
    }
    assert scaled.keys() == {f"{RELEASE}-worker-{name}" for name in ("dpt", "slice", "cpu")}
    for document in of_kind(documents, "Deployment"):
        assert ("replicas" in document["spec"]) != (document["metadata"]["name"] in scaled)
    dpt = scaled[f"{RELEASE}-worker-dpt"]
    assert (dpt["minReplicaCount"], dpt["maxReplicaCount"]) == (0, 8)
    assert all(
        isinstance(value, str) for one in dpt["triggers"] for value in one["metadata"].values()
    )


def test_keda_reads_fields_that_the_gateway_answers() -> None:
    schemas = (ROOT / "gateway" / "maskq_gateway" / "api" / "schemas.py").read_text()
    (demand,) = re.findall(r"class ModelDemand\(.*?(?=\n\n\n)", schemas, re.DOTALL)
    (scaled, *_) = (
        one["spec"]
        for one in of_kind(rendered("everything"), "ScaledObject")
        if one["spec"]["scaleTargetRef"]["name"].endswith("-dpt")
    )
    asked = [one["metadata"]["valueLocation"] for one in scaled["triggers"]]
    assert asked == ["models.0.desired_workers"]
    for field in ("model", "desired_workers"):
        assert re.search(rf"^    {field}: ", demand, re.MULTILINE)
    assert scaled["triggers"][0]["metadata"]["url"].startswith(
        f"http://{RELEASE}-gateway.masks.svc:80/v1/scale?"
    )


REFUSED = {
    "an unknown value": ({"redis": {"deploy": True, "replicas": 2}}, "replicas"),
    "an unknown field of a pool": (
        {"redis": {"deploy": True}, "pools": {"x": {"gpu": 1}}},
        "pools/x",
    ),
    "a drain of text": ({"redis": {"deploy": True}, "drainSeconds": "30s"}, "drainSeconds"),
    "no Redis": ({}, "redis.host"),
    "a role without a Secret": ({"secrets": {"create": False}}, "secrets.existing"),
    "a Redis of the chart, secrets of others": (
        {"redis": {"deploy": True}, "secrets": {"existing": {"worker": "x"}}},
        "redis.deploy",
    ),
    "SQS without rules": (
        {"redis": {"deploy": True}, "sqs": {"enabled": True, "queueUrl": "https://q"}},
        "triggerRules",
    ),
    "KEDA without a key": (
        {"redis": {"deploy": True}, "pools": {"demo": {"autoscaling": {"kind": "keda"}}}},
        "scaleKey",
    ),
    "a collector without a scheme": (
        {"redis": {"deploy": True}, "traces": {"endpoint": "collector:4318"}},
        "traces/endpoint",
    ),
    "a setting of traces that is none": (
        {"redis": {"deploy": True}, "traces": {"settings": {"MASKQ_DEVICE": "cpu"}}},
        "OTEL_",
    ),
    "a shell's character in a checkpoint": (
        {"redis": {"deploy": True}, "pools": {"x": {"model": "a'; id"}}},
        "pools/x",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_values_that_cannot_work_are_refused_with_a_word(case: str) -> None:
    values, named = REFUSED[case]
    said = helm("template", values)
    assert said.returncode != 0
    assert named in said.stderr


def test_the_schema_has_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compared(value: Any, part: Document, path: str) -> None:
        part = schema["$defs"]["pool"] if part.get("$ref") else part
        if part.get("additionalProperties") is False:
            assert value.keys() == part["properties"].keys() - {"global"}, path
            for name, own in value.items():
                compared(own, part["properties"][name], f"{path}.{name}")

    compared(values, schema, "values")


def test_the_redis_of_the_chart_has_the_options_of_compose() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["redis"]
    options = set(re.findall(r"--[a-z-]+", compose["command"]))
    (redis,) = of_kind(rendered("trial"), "StatefulSet")
    command = redis["spec"]["template"]["spec"]["containers"][0]["command"]
    assert options | {"--dir"} == {one for one in command if one.startswith("--")}


def test_the_versions_are_those_of_the_package() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert version
    assert chart["appVersion"] == version[1]
