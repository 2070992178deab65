"""LoadGen's mlperf_log_summary.txt: its verdict and figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_RATE: Final = {"Offline": "Samples per second", "Server": "Completed samples per second"}
_PERCENTILE: Final = "{:.2f} percentile latency (ns)"


@dataclass(frozen=True, slots=True)
class Summary:
    """The values are LoadGen's text, by its own names."""

    values: dict[str, str]
    advice: tuple[str, ...]  # why a run is INVALID, and of early stopping

    @classmethod
    def read(cls, path: Path) -> Summary:
        lines = path.read_text(encoding="utf-8").splitlines()
        pairs = (line.split(":", 1) for line in lines if ":" in line)
        advice = tuple(line.strip(" *") for line in lines if line.startswith(" * "))
        return cls({name.strip(): value.strip() for name, value in pairs}, advice)

    @property
    def verdict(self) -> str:
        """VALID or INVALID."""
        return self.values["Result is"]

    @property
    def rate(self) -> float | None:
        """Samples a second; None for SingleStream."""
        name = _RATE.get(self.values["Scenario"])
        return float(self.values[name]) if name else None

    def percentile_s(self, percent: float) -> float:
        """percent: 50, 90, 95, 97, 99 or 99.9."""
        return float(self.values[_PERCENTILE.format(percent)]) / 1e9
