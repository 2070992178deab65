"""The series of one worker process. They end with the process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from maskq.telemetry.series import Series, exposition
from maskq_worker.telemetry.counters import Work

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

STAGES: Final = Series(
    "maskq_stage_seconds",
    "histogram",
    "Seconds of each stage of the jobs that succeeded here, as in timings_ms of a record.",
    ("stage",),
)
BATCH_SIZE: Final = Series("maskq_batch_size", "histogram", "Images in a forward.")
EFFICIENCY: Final = Series(
    "maskq_forward_efficiency",
    "gauge",
    "Images in a forward as a share of the largest batch, over all forwards of the process.",
)
BUSY: Final = Series(
    "maskq_forward_busy_seconds_total", "counter", "Seconds in which at least one forward ran."
)
HELD: Final = Series("maskq_worker_jobs_held", "gauge", "Jobs that the process holds.")
LEASES_LOST: Final = Series(
    "maskq_worker_leases_lost_total",
    "counter",
    "Jobs that were canceled, timed out or went to another worker while the process held them.",
)
STARTED: Final = Series(
    "maskq_worker_start_time_seconds",
    "gauge",
    "When the process was ready for jobs, in seconds since 1970.",
    ("model",),
)
GPU_MEMORY: Final = Series(
    "maskq_gpu_memory_bytes",
    "gauge",
    "Memory that the process reserved on its GPU; 0 without a GPU.",
)
GPU_FREE: Final = Series(
    "maskq_gpu_memory_free_bytes", "gauge", "Memory of the GPU that no process has reserved."
)
GPU_TOTAL: Final = Series("maskq_gpu_memory_total_bytes", "gauge", "Memory of the GPU.")
STORE_ERRORS: Final = Series(
    "maskq_store_errors_total",
    "counter",
    "Requests to object stores that failed: outage, credentials, conflict or refusal.",
    ("kind",),
)
BREAKER_OPEN: Final = Series(
    "maskq_store_breaker_open",
    "gauge",
    "Stores whose circuit breaker is open: home, which stops all claims (0 or 1), and others.",
    ("store",),
)

SERIES: Final = (
    STARTED, STAGES, BATCH_SIZE, EFFICIENCY, BUSY, HELD, LEASES_LOST, GPU_MEMORY, GPU_FREE, GPU_TOTAL,
    STORE_ERRORS, BREAKER_OPEN,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Memory of the process's GPU, in bytes; all 0 without one."""

    reserved: int = 0  # by this process
    free: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class ProcessState:
    """What a process is asked for at each scrape."""

    model: str
    started_s: float  # since 1970
    work: Work
    busy_s: float
    held: int
    leases_lost: int
    gpu_memory: GpuMemory
    store_errors: Mapping[str, int]  # by kind
    home_is_away: bool
    open_stores: int  # other than home


def process_text(state: ProcessState) -> bytes:
    """The series in Prometheus' text format."""
    return exposition(_families(state))


def _families(state: ProcessState) -> Iterator[Metric]:
    started = STARTED.gauge()
    started.add_metric([state.model], state.started_s)
    yield started
    stages, batches = STAGES.histogram(), BATCH_SIZE.histogram()
    for stage, counted in state.work.stages.items():
        stages.add_metric([stage], [*counted.buckets], counted.total)
    batches.add_metric([], [*state.work.batches.buckets], state.work.batches.total)
    yield from (stages, batches)
    for series, value in (
        (EFFICIENCY, state.work.efficiency),
        (HELD, state.held),
        (GPU_MEMORY, state.gpu_memory.reserved),
        (GPU_FREE, state.gpu_memory.free),
        (GPU_TOTAL, state.gpu_memory.total),
    ):
        gauge = series.gauge()
        gauge.add_metric([], value)
        yield gauge
    for series, value in ((BUSY, state.busy_s), (LEASES_LOST, state.leases_lost)):
        counter = series.counter()
        counter.add_metric([], value)
        yield counter
    yield from _of_stores(state)


def _of_stores(state: ProcessState) -> Iterator[Metric]:
    errors, is_open = STORE_ERRORS.counter(), BREAKER_OPEN.gauge()
    for kind, count in state.store_errors.items():
        errors.add_metric([kind], count)
    is_open.add_metric(["home"], int(state.home_is_away))
    is_open.add_metric(["other"], state.open_stores)
    yield from (errors, is_open)
