"""promtool checks the rules and the configuration, and runs each alert on series made for it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from support.prometheus import ROOT, program
from tools.monitoring.rules import WRITTEN, rules

pytestmark = pytest.mark.monitoring

AT = 'instance="a:1", job="maskq"'
GATEWAYS = [f'instance="{one}:8090", job="maskq"' for one in "ab"]
DAY = "x1440"  # of minutes


class Case(NamedTuple):
    series: dict[str, str]  # values of each minute, as promtool reads them
    fires: set[str]
    minutes: int = 30


def of_jobs(*ended: tuple[str, str, str]) -> dict[str, str]:
    """status, code and values, as two gateways export them."""
    return {
        f'maskq_jobs_total{{{at}, model="m", status="{status}", code="{code}"}}': values
        for status, code, values in ended
        for at in GATEWAYS
    }


def depth(values: str) -> dict[str, str]:
    return {f'maskq_queue_depth{{{AT}, model="m", priority="low"}}': values}


def batches(mean: str, efficiency: str) -> dict[str, str]:
    """A forward a minute."""
    return {
        f"maskq_batch_size_sum{{{AT}}}": mean,
        f"maskq_batch_size_count{{{AT}}}": f"1+1{DAY}",
        f"maskq_forward_efficiency{{{AT}}}": efficiency,
        f'maskq_worker_start_time_seconds{{{AT}, model="m"}}': f"1700000000{DAY}",
        f'maskq_workers{{{AT}, model="m"}}': f"1{DAY}",
    }


# Whatever else a case has, this keeps MaskqMetricsMissing quiet.
EXPORTED = {f"maskq_webhooks_due{{{AT}}}": f"0{DAY}"}
CASES = {
    "idle": Case({}, set()),
    "old": Case(
        {f'maskq_queue_oldest_seconds{{{AT}, model="m"}}': f"0+60{DAY}"}, {"MaskqQueueOld"}
    ),
    "not yet old": Case({f'maskq_queue_oldest_seconds{{{AT}, model="m"}}': f"600{DAY}"}, set()),
    "no workers": Case(
        depth(f"3{DAY}") | {f'maskq_workers{{{AT}, model="m"}}': f"0{DAY}"}, {"MaskqNoWorkers"}
    ),
    "no workers and no series of them": Case(depth(f"3{DAY}"), {"MaskqNoWorkers"}),
    "no workers and no jobs": Case(
        depth(f"0{DAY}") | {f'maskq_workers{{{AT}, model="m"}}': f"0{DAY}"}, set()
    ),
    "workers": Case(depth(f"3{DAY}") | {f'maskq_workers{{{AT}, model="m"}}': f"1{DAY}"}, set()),
    "failing": Case(
        of_jobs(("succeeded", "", f"0+9{DAY}"), ("failed", "internal", f"0+1{DAY}")),
        {"MaskqJobsFailing"},
    ),
    "failing seldom": Case(
        of_jobs(("succeeded", "", f"0+99{DAY}"), ("failed", "internal", f"0+1{DAY}")), set()
    ),
    "few failed": Case(
        of_jobs(("succeeded", "", f"0{DAY}"), ("failed", "internal", "0x25 2x999")), set()
    ),
    "failed long ago": Case(
        of_jobs(("succeeded", "", f"0+9{DAY}"), ("failed", "internal", "0x5 90x999")), set(), 40
    ),
    "bad input": Case(
        of_jobs(("succeeded", "", f"0+1{DAY}"), ("failed", "invalid_image", f"0+1{DAY}")),
        {"MaskqBadInput"},
    ),
    "expired": Case(of_jobs(("expired", "expired", "0x25 2x999")), {"MaskqJobsExpired"}),
    "restarting": Case(
        {f'maskq_worker_start_time_seconds{{{AT}, model="m"}}': "1x20 2 _ 3 _ 4x99"},
        {"MaskqWorkerRestarting"},
    ),
    "restarted once": Case(
        {f'maskq_worker_start_time_seconds{{{AT}, model="m"}}': "1x20 2x99"}, set()
    ),
    "leases": Case(
        {f"maskq_leases_lost_total{{{at}}}": "0x25 9x999" for at in GATEWAYS}, {"MaskqLeasesLost"}
    ),
    "tickets": Case({f"maskq_tickets_resent_total{{{AT}}}": "0x25 90x999"}, {"MaskqTicketsResent"}),
    "no sweeper": Case(
        {f"maskq_sweeper_age_seconds{{{AT}}}": f"0+60{DAY}"}, {"MaskqSweeperSilent"}
    ),
    "GPU full": Case(
        {
            f"maskq_gpu_memory_free_bytes{{{AT}}}": f"2{DAY}",
            f"maskq_gpu_memory_total_bytes{{{AT}}}": f"100{DAY}",
        },
        {"MaskqGpuMemoryLow"},
    ),
    "no GPU": Case(
        {
            f"maskq_gpu_memory_free_bytes{{{AT}}}": f"0{DAY}",
            f"maskq_gpu_memory_total_bytes{{{AT}}}": f"0{DAY}",
        },
        set(),
    ),
    "small batches": Case(
        batches(f"1+1{DAY}", f"0.125{DAY}") | depth(f"200{DAY}"), {"MaskqSmallBatches"}
    ),
    "small batches, and few jobs": Case(
        batches(f"1+1{DAY}", f"0.125{DAY}") | depth(f"9{DAY}"), set()
    ),
    # Full ones for hours, then single images. The gauge, over all of them, still says 0.9.
    "small batches of late": Case(
        batches("8+8x1000 8001+1x440", f"0.9{DAY}") | depth(f"200{DAY}"),
        {"MaskqSmallBatches"},
        1100,
    ),
    "store": Case(
        {f'maskq_store_breaker_open{{{AT}, store="home"}}': f"1{DAY}"}, {"MaskqStoreAway"}
    ),
    "other store": Case(
        {f'maskq_store_breaker_open{{{AT}, store="other"}}': f"2{DAY}"}, {"MaskqOtherStoreAway"}
    ),
    "other store, tried now and then": Case(
        {f'maskq_store_breaker_open{{{AT}, store="other"}}': "1 0 0 1 0 " * 30},
        {"MaskqOtherStoreAway"},
    ),
    "other store failed once": Case(
        {f'maskq_store_breaker_open{{{AT}, store="other"}}': "0x5 1 0x999"}, set()
    ),
    "store errors": Case(
        {f'maskq_store_errors_total{{{AT}, kind="outage"}}': f"0+60{DAY}"}, {"MaskqStoreErrors"}
    ),
    "refusals are the caller's": Case(
        {f'maskq_store_errors_total{{{AT}, kind="refusal"}}': f"0+60{DAY}"}, set()
    ),
    "webhooks late": Case(
        {f"maskq_webhooks_overdue_seconds{{{AT}}}": f"0+60{DAY}"}, {"MaskqWebhooksLate"}
    ),
    "webhooks dead": Case(
        {f'maskq_webhooks_total{{{AT}, outcome="failed"}}': "0x25 1x999"}, {"MaskqWebhooksFailing"}
    ),
    "events": Case({f'maskq_event_lag{{{AT}, group="g"}}': f"20000{DAY}"}, {"MaskqEventLag"}),
    "missing": Case({f"maskq_webhooks_due{{{AT}}}": "0x5 stale"}, {"MaskqMetricsMissing"}),
    "down": Case({f"up{{{AT}}}": f"0{DAY}"}, {"MaskqTargetDown"}),
    "another's target is down": Case({'up{job="node"}': f"0{DAY}"}, set()),
    "Redis full": Case(
        {
            'redis_memory_used_bytes{instance="r"}': f"90{DAY}",
            'redis_memory_max_bytes{instance="r"}': f"100{DAY}",
        },
        {"MaskqRedisMemory"},
    ),
    "Redis without a limit": Case(
        {
            'redis_memory_used_bytes{instance="r"}': f"90{DAY}",
            'redis_memory_max_bytes{instance="r"}': f"0{DAY}",
        },
        set(),
    ),
}


def promtool(*arguments: str) -> str:
    ran = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def unit_tests() -> dict[str, Any]:
    """All cases, in the form of `promtool test rules`."""
    query = 'count by (alertname) (ALERTS{alertstate="firing"})'
    return {
        "rule_files": [str(WRITTEN)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "name": name,
                "interval": "1m",
                "input_series": [
                    {"series": one, "values": values}
                    for one, values in (EXPORTED | case.series).items()
                ],
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": f"{case.minutes}m",
                        "exp_samples": [
                            {"labels": f'{{alertname="{alert}"}}', "value": 1}
                            for alert in sorted(case.fires)
                        ],
                    }
                ],
            }
            for name, case in CASES.items()
        ],
    }


def test_rules_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(WRITTEN))


def test_the_configuration_of_docker_compose_is_valid_and_finds_the_rules(tmp_path: Path) -> None:
    folder = ROOT / "deploy" / "prometheus"  # mounted at /etc/prometheus
    text = (folder / "prometheus.yml").read_text().replace("/etc/prometheus", str(folder))
    file = tmp_path / "prometheus.yml"
    file.write_text(text)
    said = promtool("check", "config", str(file))
    assert "1 rule files found" in said
    assert f"{WRITTEN!s}\n  SUCCESS: " in said


def test_each_alert_fires_for_its_series_and_no_other_does(tmp_path: Path) -> None:
    file = tmp_path / "cases.yml"
    file.write_text(yaml.safe_dump(unit_tests(), sort_keys=False))
    promtool("test", "rules", str(file))


def test_every_alert_has_a_case() -> None:
    groups = yaml.safe_load(rules({}))["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert set().union(*(case.fires for case in CASES.values())) == alerts


def test_a_text_has_its_values(tmp_path: Path) -> None:
    case = {
        "interval": "1m",
        "input_series": [
            {"series": one, "values": values}
            for one, values in (EXPORTED | CASES["failing"].series).items()
        ],
        "alert_rule_test": [
            {
                "eval_time": "30m",
                "alertname": "MaskqJobsFailing",
                "exp_alerts": [
                    {
                        "exp_labels": {
                            "severity": "critical", "job": "maskq", "model": "m",
                            "code": "internal",
                        },
                        "exp_annotations": {
                            "summary": "Jobs of m fail with internal.",
                            "description": "10% of the jobs of m that ended in the last 15m failed"
                            " with internal, which is not their callers' fault.",
                            "runbook_url": "docs/runbooks.md#maskqjobsfailing",
                        },
                    }
                ],
            }
        ],
    }  # fmt: skip
    file = tmp_path / "text.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(WRITTEN)], "tests": [case]}))
    promtool("test", "rules", str(file))
