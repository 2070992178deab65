"""Rules, dashboard and runbooks: written from their sources; their series and commands exist."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from tools.monitoring import dashboard, rules

from maskq.cli import build
from maskq.telemetry import deployment
from maskq.telemetry.series import Series
from maskq_worker.telemetry import series as process

ROOT = Path(__file__).parents[3]
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
GROUPS: list[dict[str, Any]] = yaml.safe_load(rules.rules({}))["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
SERIES: tuple[Series, ...] = (*deployment.SERIES, *process.SERIES)
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in json.loads(dashboard.dashboard())["panels"]
    for target in panel.get("targets", ())
} | {rule.get("alert") or rule["record"]: rule["expr"] for rule in RULES}


def names(series: Series) -> set[str]:
    """Under which a series is queried."""
    if series.kind == "histogram":
        return {f"{series.name}_{part}" for part in ("bucket", "sum", "count")}
    return {series.name}


# --- written files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text"),
    [(rules.WRITTEN, rules.rules({})), (dashboard.WRITTEN, dashboard.dashboard())],
    ids=["rules", "dashboard"],
)
def test_a_file_is_what_its_source_says(path: Path, text: str) -> None:
    assert path.read_text(encoding="utf-8") == text, "run .venv/bin/python -m tools.monitoring"


def test_docker_compose_shows_the_dashboard_with_its_own_prometheus() -> None:
    folder = ROOT / "deploy" / "grafana"  # mounted at /etc/grafana/maskq
    (provider,) = yaml.safe_load((folder / "provisioning/dashboards/maskq.yml").read_text())[
        "providers"
    ]
    path = provider["options"]["path"].replace("/etc/grafana/maskq", str(folder))
    assert Path(path) == dashboard.WRITTEN.parent
    (source,) = yaml.safe_load((folder / "provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)


def test_every_parameter_is_used_and_has_a_default() -> None:
    used = set(re.findall(r"@(\w+)@", rules.template()))
    assert used == rules.parameters().keys()
    assert "@" not in rules.rules({})


def test_a_parameter_changes_its_alert_and_an_unknown_one_is_refused() -> None:
    (group,) = (
        one
        for one in yaml.safe_load(rules.rules({"queue_oldest_s": "7", "for_critical": "1s"}))[
            "groups"
        ]
        if one["name"] == "maskq-jobs"
    )
    assert (group["rules"][0]["expr"].split()[-1], group["rules"][0]["for"]) == ("7", "1s")
    with pytest.raises(rules.UnknownParameter, match=r"que_oldest_s: no such parameter\. Known: "):
        rules.rules({"que_oldest_s": "7"})


# --- series -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_names_series_that_exist(name: str) -> None:
    known = {one for series in SERIES for one in names(series)} | RECORDED
    assert set(re.findall(r"\bmaskq[_:][\w:]+", QUERIES[name])) <= known


def test_every_series_is_in_the_dashboard_or_an_alert() -> None:
    text = " ".join(QUERIES.values())
    assert [s.name for s in SERIES if not any(one in text for one in names(s))] == []


# --- alerts and their runbooks ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_grave_it_is_what_is_wrong_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    severity = alert["labels"]["severity"]
    assert severity in ("critical", "warning")
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
    section = re.search(rf"^### {name}\n\n(\w+):", RUNBOOKS, re.MULTILINE)
    assert section, f"docs/runbooks.md has no section {name}"
    assert section[1] == severity.capitalize()


def test_every_section_is_of_an_alert() -> None:
    assert set(re.findall(r"^### (\w+)", RUNBOOKS, re.MULTILINE)) == ALERTS.keys()


def commands() -> Iterator[str]:
    """Each command `maskq …` of the runbooks."""
    fenced = re.findall(r"^```sh shown\n(.*?)^```", RUNBOOKS, re.MULTILINE | re.DOTALL)
    for line in "".join(fenced).splitlines():
        if line.startswith("maskq "):
            yield line.partition("#")[0].strip()
    prose = re.sub(r"^```.*?^```", "", RUNBOOKS, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`(maskq [^`]+)`", prose)


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_a_command_of_the_runbooks_exists(line: str) -> None:
    command: Any = typer.main.get_command(build())
    words = shlex.split(line)[1:]
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands") or command.invoke_without_command
    options = {one for parameter in command.params for one in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options
