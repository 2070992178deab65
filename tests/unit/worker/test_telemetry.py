"""What a worker process counts, and the series that show it."""

from __future__ import annotations

import threading

import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families

from maskq.telemetry.settings import port_of
from maskq_worker.broker.process_metrics import gpu_memory
from maskq_worker.command import worker
from maskq_worker.telemetry.counters import Histogram, ProcessCounters
from maskq_worker.telemetry.series import SERIES, GpuMemory, ProcessState, process_text


def test_a_histogram_counts_a_value_in_each_bucket_that_is_not_below_it() -> None:
    histogram = Histogram((1, 2, 4))
    for value in (1, 1.5, 4, 5):
        histogram.add(value)
    counted = histogram.counted()
    assert counted.buckets == (("1", 1), ("2", 2), ("4", 3), ("+Inf", 4))
    assert counted.total == 11.5


def test_no_count_of_several_threads_is_lost() -> None:
    counters = ProcessCounters(4)

    def work() -> None:
        for _ in range(2000):
            counters.job_succeeded({"decode": 1.0, "model": 2.0})
            counters.batch_started(2)
            counters.job_ended()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = counters.work()
    assert found.stages["decode"].buckets[-1] == ("+Inf", 16_000)
    assert found.stages["model"].total == pytest.approx(32.0)
    assert found.batches.buckets[-1] == ("+Inf", 16_000)
    assert found.efficiency == 0.5
    assert 0 < counters.jobs_per_s <= 16_000


def state(counters: ProcessCounters) -> ProcessState:
    return ProcessState(
        model="demo", started_s=1_700_000_000, work=counters.work(), busy_s=1.5, held=2,
        leases_lost=3, gpu_memory=GpuMemory(5, 20, 100),
        store_errors={"outage": 4, "refusal": 0}, home_is_away=True, open_stores=5,
    )  # fmt: skip


def test_every_series_has_the_name_type_and_labels_of_the_table() -> None:
    counters = ProcessCounters(4)
    counters.job_succeeded({"decode": 12.0})
    counters.batch_started(3)
    text = process_text(state(counters)).decode()
    families = {one.name: one for one in text_string_to_metric_families(text)}
    for series in SERIES:
        family = families.pop(series.name.removesuffix("_total"))
        assert (family.type, family.documentation) == (series.kind, series.help)
        assert all(set(one.labels) - {"le"} == set(series.labels) for one in family.samples)
    assert families == {}
    assert 'maskq_stage_seconds_bucket{le="0.025",stage="decode"} 1.0' in text
    assert 'maskq_stage_seconds_bucket{le="0.01",stage="decode"} 0.0' in text
    assert "maskq_forward_efficiency 0.75" in text
    assert 'maskq_store_breaker_open{store="home"} 1.0' in text
    assert 'maskq_worker_start_time_seconds{model="demo"} 1.7e+09' in text
    assert "maskq_gpu_memory_bytes 5.0\n" in text
    assert "maskq_gpu_memory_free_bytes 20.0\n" in text
    assert "maskq_gpu_memory_total_bytes 100.0\n" in text
    assert 'maskq_store_errors_total{kind="outage"} 4.0' in text


def test_a_process_without_work_has_its_series_too() -> None:
    text = process_text(state(ProcessCounters())).decode()
    assert "maskq_forward_efficiency 0.0" in text
    assert "maskq_batch_size_count 0.0" in text


def test_the_memory_of_the_gpu_is_what_torch_says_and_0_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert gpu_memory() == GpuMemory()
    import torch

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 5)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (20, 100))  # free, total
    assert gpu_memory() == GpuMemory(reserved=5, free=20, total=100)


@pytest.mark.parametrize(
    ("port", "number", "expected"),
    [("9100", 0, "9100"), ("9100", 3, "9103"), ("", 3, None), ("many", 3, None)],
)
def test_each_process_of_a_host_has_its_own_port(
    port: str, number: int, expected: str | None
) -> None:
    found = port_of(number, {"MASKQ_METRICS_PORT": port} if port else {})
    assert found.get("MASKQ_METRICS_PORT") == expected


def test_the_worker_command_gives_each_process_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str | None] = []

    class Recorded:
        def __init__(
            self, name: str, command: object, variables: dict[str, str], **_: object
        ) -> None:
            found.append(variables.get("MASKQ_METRICS_PORT"))

    monkeypatch.setattr("maskq_worker.process.slots.Slot", Recorded)
    monkeypatch.setattr("maskq_worker.command._supervise", lambda slots: 0)
    monkeypatch.setenv("MASKQ_DEVICE", "cpu")
    for port in ("9100", ""):
        monkeypatch.setenv("MASKQ_METRICS_PORT", port)
        with pytest.raises(typer.Exit):
            worker(processes=3)
    assert found == ["9100", "9101", "9102", None, None, None]
