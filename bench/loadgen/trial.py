"""One LoadGen run: its settings, its logs, its summary."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mlperf_loadgen

from bench.loadgen.summary import Summary
from bench.loadgen.system import System

_SUMMARY: Final = "mlperf_log_summary.txt"
_DETAIL: Final = "mlperf_log_detail.txt"
_DETAIL_KIB: Final = 64  # of the detailed log that are kept
_OTHER_LOGS: Final = ("mlperf_log_accuracy.json", "mlperf_log_trace.json")  # of modes not used here
_EMBEDDED_CONFIG: Final = 0  # the mlperf.conf that is compiled into the package


@dataclass(frozen=True, slots=True)
class Trial:
    scenario: str  # Offline, Server or SingleStream
    queries: int  # at least; of Offline: samples
    min_s: float
    expected_rate: float  # samples a second; Server's is the one that LoadGen keeps to
    bound_s: float  # Server's, of the 99th percentile

    def run(self, system: System, images: int, folder: Path) -> Summary:
        """Returns when all samples are complete. folder: for the logs; what it held is deleted."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        sut = mlperf_loadgen.ConstructSUT(system.issue_query, _nothing)
        # The images are in the store before and after: there is nothing to load.
        library = mlperf_loadgen.ConstructQSL(images, images, _nothing, _nothing)
        try:
            mlperf_loadgen.StartTestWithLogSettings(
                sut, library, self._settings(), _logs_in(folder), ""
            )
        finally:
            mlperf_loadgen.DestroyQSL(library)
            mlperf_loadgen.DestroySUT(sut)
        _trim(folder)
        return Summary.read(folder / _SUMMARY)

    def _settings(self) -> Any:
        settings = mlperf_loadgen.TestSettings()
        settings.FromConfig("", "maskq", self.scenario, _EMBEDDED_CONFIG)  # the round's seeds
        settings.scenario = getattr(mlperf_loadgen.TestScenario, self.scenario)
        settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
        settings.min_duration_ms = round(1e3 * self.min_s)
        settings.min_query_count = self.queries
        settings.offline_expected_qps = self.expected_rate
        settings.server_target_qps = self.expected_rate
        settings.server_target_latency_ns = round(1e9 * self.bound_s)
        settings.server_target_latency_percentile = 0.99
        settings.single_stream_expected_latency_ns = round(1e9 / self.expected_rate)
        settings.single_stream_target_latency_percentile = 0.9
        return settings


def complete(sample: int) -> None:
    """Tell LoadGen; the answer itself stays in the store."""
    mlperf_loadgen.QuerySamplesComplete([mlperf_loadgen.QuerySampleResponse(sample, 0, 0)])


def _logs_in(folder: Path) -> Any:
    logs = mlperf_loadgen.LogSettings()
    logs.log_output.outdir = str(folder)
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = False
    return logs


def _trim(folder: Path) -> None:
    for name in _OTHER_LOGS:
        (folder / name).unlink(missing_ok=True)
    detail = folder / _DETAIL
    text = detail.read_text(encoding="utf-8")
    if len(text) > _DETAIL_KIB * 1024:
        half = _DETAIL_KIB * 512
        head, tail = text[:half].rpartition("\n")[0], text[-half:].partition("\n")[2]
        detail.write_text(f"{head}\n… trimmed by bench.loadgen …\n{tail}", encoding="utf-8")


def _nothing(*_: Any) -> None:
    """LoadGen requires these callbacks."""
