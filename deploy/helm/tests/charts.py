"""The chart rendered by helm, and what its documents must be valid against."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject, TriggerAuthentication
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "maskq"
HELM = os.environ.get("HELM") or str(Path(sys.executable).with_name("helm"))
RELEASE = "trial-maskq"
KUBERNETES = ("1.27.0", "1.37.0")  # the oldest that Chart.yaml admits, and the newest known

_OTHERS = {
    ("keda.sh/v1alpha1", "ScaledObject"): ScaledObject,
    ("keda.sh/v1alpha1", "TriggerAuthentication"): TriggerAuthentication,
    ("monitoring.coreos.com/v1", "ServiceMonitor"): ServiceMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): PrometheusRule,
}

Document = dict[str, Any]

# What people set. Each is rendered, linted and checked.
CASES: dict[str, Document] = {
    "trial": {"redis": {"deploy": True}, "s3": {"endpointUrl": "http://minio.storage.svc:9000"}},
    "own servers, existing secrets": {
        "redis": {"host": "redis.internal", "port": 6380, "tls": True},
        "secrets": {
            "create": False,
            "existing": {"worker": "own-worker", "gateway": "own-gateway", "webhooks": "own-hooks"},
        },
        "serviceAccounts": {"worker": {"annotations": {"eks.amazonaws.com/role-arn": "arn:x"}}},
    },
    "everything": {
        "images": {
            "worker": {"repository": "registry.example/maskq", "digest": "sha256:" + "a" * 64},
            "gateway": {"repository": "registry.example/maskq-gateway", "tag": "1.2.3"},
            "pullSecrets": ["registry"],
        },
        "drainSeconds": 45,
        "settings": {"MASKQ_LOG_LEVEL": "INFO", "MASKQ_RETENTION_S": 86400},
        "redis": {"host": "redis.internal"},
        "s3": {"bucket": "acme", "allowedLocations": "s3://acme,s3://photos"},
        "secrets": {
            "scaleKey": "maskq-scale",
            "s3Keys": {"worker": {"accessKeyId": "AKID", "secretAccessKey": "SAK"}},
        },
        "pools": {
            "demo": None,
            "dpt": {
                "model": "Intel/dpt-large-ade",
                "weights": "volume",
                "gpus": 1,
                "processesPerGpu": 2,
                "drainSeconds": 120,
                "resources": {"requests": {"cpu": "4"}, "limits": {"memory": "32Gi"}},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                "autoscaling": {"kind": "keda", "minReplicas": 0, "maxReplicas": 8},
            },
            "slice": {
                "model": "Intel/dpt-large-ade",
                "modelName": "small",
                "weights": "volume",
                "gpus": 1,
                "gpuResource": "nvidia.com/mig-1g.10gb",
                "autoscaling": {"kind": "keda", "source": "prometheus"},
            },
            "cpu": {"modelName": "demo", "autoscaling": {"kind": "hpa"}},
        },
        "gateway": {
            "outputs": "stream",
            "triggerRules": '[[rule]]\nname = "photos"\nbucket = "acme"\nprefix = "in/"\n',
            "ingress": {"enabled": True, "host": "masks.example", "tlsSecret": "masks-tls"},
        },
        "sqs": {"enabled": True, "queueUrl": "https://sqs.eu-west-1.amazonaws.com/1/uploads"},
        "webhooks": {"allowedHosts": "hooks.internal:8443"},
        "metrics": {
            "enabled": True,
            "serviceMonitor": {"enabled": True},
            "prometheusRule": {"enabled": True, "parameters": {"queue_oldest_s": 60}},
        },
        "traces": {
            "endpoint": "http://collector.monitoring.svc:4318",
            "settings": {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": 0.1},
            "headersSecret": "otlp",
        },
        "networkPolicy": {"redisTo": [{"ipBlock": {"cidr": "10.1.2.3/32"}}]},
    },
}


def helm(command: str, values: Document, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `helm template` or `helm lint` with these values."""
    name = [RELEASE] if command == "template" else []
    return subprocess.run(
        [HELM, command, *name, str(CHART), "--namespace", "masks", "--values", "-", *options],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@cache
def rendered(case: str) -> tuple[Document, ...]:
    said = helm("template", CASES[case])
    assert said.returncode == 0, said.stderr
    return tuple(document for document in yaml.safe_load_all(said.stdout) if document)


def of_kind(documents: tuple[Document, ...], *kinds: str) -> list[Document]:
    return [document for document in documents if document["kind"] in kinds]


def workloads(documents: tuple[Document, ...]) -> Iterator[tuple[str, Document]]:
    """Name, and template of the pods."""
    for document in of_kind(documents, "Deployment", "StatefulSet", "Job"):
        yield document["metadata"]["name"], document["spec"]["template"]


def containers(template: Document) -> list[Document]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def environment(container: Document) -> dict[str, str]:
    """The variables that are not of a Secret."""
    entries = container.get("env", [])
    return {entry["name"]: entry["value"] for entry in entries if "valueFrom" not in entry}


def check(document: Document, version: str) -> None:
    """Raise for a field that Kubernetes, KEDA or the Prometheus operator does not know or accept."""
    model = _OTHERS.get((document["apiVersion"], document["kind"]))
    if model is None:
        kubernetes_validate.validate(document, version, strict=True)
        return
    accepted = model.model_validate(document)
    kept = accepted.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert kept == document, "fields that the custom resource does not have"
