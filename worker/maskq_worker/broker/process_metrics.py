"""Serves the metrics of a worker process at MASKQ_METRICS_PORT."""

from __future__ import annotations

import sys
import time
from typing import Any

from maskq.telemetry.server import MetricsServer
from maskq_worker.batching.batcher import MicroBatcher
from maskq_worker.jobs.leases import Leases
from maskq_worker.settings import WorkerSettings
from maskq_worker.storage.circuit_breaker import StoreCircuitBreaker
from maskq_worker.telemetry.counters import ProcessCounters
from maskq_worker.telemetry.series import GpuMemory, ProcessState, process_text


class ProcessMetrics:
    """The metrics of one process; nothing is served without a port."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        model: str,
        counters: ProcessCounters,
        batcher: MicroBatcher[Any, Any],
        leases: Leases,
        breaker: StoreCircuitBreaker,
    ) -> None:
        self._model = model
        self._started_s = time.time()
        self._counters = counters
        self._batcher = batcher
        self._leases = leases
        self._breaker = breaker
        self._server: MetricsServer | None = None
        if settings.metrics_port is not None:
            self._server = MetricsServer(settings.metrics_host, settings.metrics_port, self.text)

    def start(self) -> None:
        if self._server:
            self._server.start()

    def stop(self) -> None:
        if self._server:
            self._server.stop()

    def text(self) -> bytes:
        """The series in Prometheus' text format."""
        return process_text(
            ProcessState(
                model=self._model,
                started_s=self._started_s,
                work=self._counters.work(),
                busy_s=self._batcher.busy_seconds,
                held=len(self._leases.holding()),
                leases_lost=self._leases.lost_count,
                gpu_memory=gpu_memory(),
                store_errors=self._breaker.error_counts,
                home_is_away=self._breaker.home_is_away,
                open_stores=self._breaker.open_count,
            )
        )


def gpu_memory() -> GpuMemory:
    """As torch says. Loads no torch, and no CUDA where none is used."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return GpuMemory()
    free, total = torch.cuda.mem_get_info()
    return GpuMemory(torch.cuda.memory_reserved(), free, total)
