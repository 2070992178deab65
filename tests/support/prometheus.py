"""Debian's Prometheus as a child process: it scrapes, evaluates rules, and is asked by HTTP."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3
import yaml
from support.waiting import until

from maskq_standalone.ports import free_port

ROOT = Path(__file__).parents[2]
_FETCHED = ROOT / ".prometheus" / "usr" / "bin"  # by `make monitoring-test`


def program(name: str) -> str:
    """The path of prometheus or promtool. That it is missing is a failure."""
    folder = os.environ.get("PROMETHEUS_BIN", str(_FETCHED))
    path = shutil.which(name, path=f"{folder}{os.pathsep}{os.environ['PATH']}")
    assert path, f"no {name}: run `make monitoring-test`, or name its folder in PROMETHEUS_BIN"
    return path


class Prometheus:
    """A context manager: it answers inside the block."""

    def __init__(self, folder: Path, scraped: list[dict[str, Any]], rules: str) -> None:
        """scraped: entries of scrape_configs."""
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        (folder / "rules.yml").write_text(rules)
        every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config = {"global": every, "rule_files": ["rules.yml"], "scrape_configs": scraped}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> Self:
        with (self._folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stderr=log,
            )
        until(self._answers, otherwise=lambda: (self._folder / "log").read_text())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)

    def _answers(self) -> bool:
        try:
            return urllib3.request("GET", f"{self.url}/-/ready", retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def ask(self, path: str, fields: Mapping[str, str]) -> Any:
        """The data that /api/v1/PATH answers."""
        answer = urllib3.request("GET", f"{self.url}/api/v1/{path}", fields=dict(fields))
        said = json.loads(answer.data)
        assert said["status"] == "success", (fields, said)
        return said["data"]

    def query(self, text: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Values by labels, without the name."""
        found = self.ask("query", {"query": text})["result"]
        return {
            tuple(sorted((k, v) for k, v in one["metric"].items() if k != "__name__")): float(
                one["value"][1]
            )
            for one in found
        }

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        return self._alerts('ALERTS{alertstate="firing"}')

    def fired(self, within: str) -> set[str]:
        """The names of the alerts that fired in this period."""
        return self._alerts(f'max_over_time(ALERTS{{alertstate="firing"}}[{within}])')

    def _alerts(self, text: str) -> set[str]:
        return {dict(labels)["alertname"] for labels in self.query(text)}
