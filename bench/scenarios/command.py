"""`python -m bench.scenarios`: which scenarios, with which model, how many jobs."""

from __future__ import annotations

import argparse
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import bench.scenarios
from bench import report
from bench.scenarios import burst, memory, mixed, null, offline, server
from bench.scenarios.findings import Findings, Options

SCENARIOS: dict[str, Callable[[Options], Findings]] = {
    "null": null.run,
    "memory": memory.run,
    "offline": offline.run,
    "server": server.run,
    "burst": burst.run,
    "mixed": mixed.run,
}
_WITHOUT_FORWARD = ("null", "memory")  # their model is the smallest unless another is named


def main(argv: Sequence[str] | None = None) -> None:
    chosen = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _end)  # so that stacks and folders go, too
    names = [*SCENARIOS] if chosen.scenario == "all" else [chosen.scenario]
    for name in names:
        default = "smallest" if name in _WITHOUT_FORWARD else "demo"
        options = Options(
            model=chosen.model or default,
            jobs=chosen.jobs,
            workers=chosen.workers,
            seed=chosen.seed,
            load=chosen.load,
            seconds=chosen.seconds,
            price_per_hour=chosen.price_per_hour,
        )
        findings = SCENARIOS[name](options)
        show(name, options, findings)
        if not chosen.print_only:
            write(name, options, findings)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="python -m bench.scenarios",
        description=bench.scenarios.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("scenario", nargs="?", default="all", choices=[*SCENARIOS, "all"])
    options.add_argument(
        "--model",
        help="smallest or large (random weights, large: DPT-Large's shape), demo, or as MASKQ_MODEL; "
        "left out: demo, and smallest where the forward is free",
    )
    options.add_argument("--jobs", type=int, help="left out: as many as the scenario finds right")
    options.add_argument("--workers", type=int, default=1, help="processes (offline, burst, mixed)")
    options.add_argument("--seed", type=int, default=1, help="of arrivals and choices")
    options.add_argument("--load", type=float, default=0.8, help="of the capacity (server, mixed)")
    options.add_argument("--seconds", type=float, default=10.0, help="of each bare forward")
    options.add_argument(
        "--price-per-hour", type=float, help="of this machine, for cost per million"
    )
    options.add_argument("--print-only", action="store_true", help="write nothing to bench/results")
    return options


def show(name: str, options: Options, findings: Findings) -> None:
    print(f"\n=== {name}, model {options.model}, {findings.figures['jobs']} jobs")
    for title, rows in findings.tables.items():
        print(f"\n{title}\n{textwrap.indent(report.table(rows), '  ')}")
    print()
    for figure, value in findings.figures.items():
        print(f"  {figure:<34} {_said(value)}")


def write(name: str, options: Options, findings: Findings) -> None:
    """bench/results/scenarios-NAME-MODEL.json and, beside it, the plots."""
    stem = f"scenarios-{name}-{Path(options.model).name}"
    document = {"scenario": name, "model": options.model} | findings.figures
    path = report.write(stem, document | {"tables": findings.tables})
    print(f"\n  {path}")
    for what, svg in findings.plots.items():
        plot = path.with_name(f"{stem}-{what}.svg")
        plot.write_text(svg, encoding="utf-8")
        print(f"  {plot}")


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(one)}" for key, one in value.items())
    if isinstance(value, list):
        return " and ".join(_said(one) for one in value)
    return "-" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)
