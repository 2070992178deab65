"""The command: which scenarios, against which bare forward, and what is printed and written."""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import bench.loadgen
from bench import report
from bench.loadgen.summary import Summary
from bench.loadgen.system import System, event_loop, run_in
from bench.loadgen.trial import Trial, complete
from bench.scenarios import bare, pictures, service, simulation
from maskq import AsyncClient

T = TypeVar("T")
SCENARIOS: Final = ("Offline", "Server", "SingleStream")  # in this order
# DPT-Large takes seconds an image. A p99 of it would take hours.
DEFAULT: Final = {"large": ("Offline", "SingleStream")}
QUERIES: Final = {"Offline": 1000, "Server": 3000, "SingleStream": 1000}
LARGE_QUERIES: Final = {"Offline": 24, "Server": 3000, "SingleStream": 64}
IMAGES: Final = 64
WARM_UP: Final = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    scenario: str
    summary: Summary
    forward_s: float  # the bare one: mean of before and after
    bound_s: float | None = None  # Server's
    target_rate: float | None = None
    simulated_p99_s: float | None = None

    def row(self) -> dict[str, Any]:
        rate = self.summary.rate
        p90_s, p99_s = self.summary.percentile_s(90), self.summary.percentile_s(99)
        return {
            "scenario": self.scenario,
            "LoadGen": self.summary.verdict,
            "samples/s": rate,
            "rate x forward": rate * self.forward_s if rate else None,
            "p90 s": p90_s,
            "p90 / forward": p90_s / self.forward_s if self.scenario == "SingleStream" else None,
            "p99 s": p99_s,
            "p99 / forward": p99_s / self.forward_s if self.bound_s else None,
            "bound s": self.bound_s,
            "target/s": self.target_rate,
            "simulated p99 s": self.simulated_p99_s,
            "bare forward s": self.forward_s,
        }


def main() -> None:
    chosen = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    name = Path(chosen.model).name
    folder = report.RESULTS / "loadgen" / name if not chosen.print_only else Path(chosen.logs)
    outcomes = list[Outcome]()
    with service.running(chosen.model) as running, event_loop() as loop, client(loop) as opened:
        uris = pictures.stored(running, IMAGES, kinds=IMAGES)
        running.client.submit_many(uris[:WARM_UP]).wait()
        with bare.started(running, seconds=chosen.seconds) as measure:
            runner = Runner(chosen, opened, loop, uris, measure, folder)
            for scenario in chosen.scenario:
                outcomes.append(runner.run(scenario))
                print(report.table([outcomes[-1].row()]), *outcomes[-1].summary.advice, sep="\n")
    print(f"\n{report.table([one.row() for one in outcomes])}")
    if not chosen.print_only:
        figures = {"options": vars(chosen), "rows": [one.row() for one in outcomes]}
        print(report.write(f"loadgen-{name}", figures, "mlcommons_loadgen"))


class Runner:
    """The scenarios of one run: Server's target comes from Offline's rate."""

    def __init__(
        self,
        chosen: argparse.Namespace,
        opened: AsyncClient,
        loop: Any,
        uris: Sequence[str],
        measure: Any,
        folder: Path,
    ) -> None:
        self._chosen, self._client, self._loop, self._uris = chosen, opened, loop, uris
        self._measure, self._folder = measure, folder
        self._before_s = self._forward_s()
        self._offline_rate = 0.0

    def run(self, scenario: str) -> Outcome:
        """Raises the first failure of a job."""
        chosen, before_s = self._chosen, self._before_s
        server = scenario == "Server"
        bound_s = chosen.bound * before_s
        rate = chosen.load * self._offline_rate if server else 1 / before_s
        queries = chosen.queries or queries_of(chosen.model)[scenario]
        system = System(self._client, self._loop, self._uris, complete)
        trial = Trial(scenario, queries, chosen.min_seconds, rate, bound_s)
        summary = beside_signals(
            lambda: trial.run(system, len(self._uris), self._folder / scenario)
        )
        if system.failures:
            raise system.failures[0]
        if scenario == "Offline":
            self._offline_rate = summary.rate or 0.0
        self._before_s = self._forward_s()
        forward_s = (before_s + self._before_s) / 2
        if not server:
            return Outcome(scenario, summary, forward_s)
        simulated = p99_of_a_bare_server(system.arrivals_s, forward_s)
        return Outcome(scenario, summary, forward_s, bound_s, rate, simulated)

    def _forward_s(self) -> float:
        """Of one image."""
        measured: bare.Bare = self._measure()
        return 1 / measured.forward[measured.best].rate


def beside_signals(work: Callable[[], T]) -> T:
    """In another thread, because the main thread hears of no signal while LoadGen runs in it."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 -- raised where it is waited for
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result()


def p99_of_a_bare_server(arrivals_s: Sequence[float], forward_s: float) -> float:
    """With the same arrivals, one forward an image, one image at a time, and no other work."""
    return statistics.quantiles(simulation.simulate(arrivals_s, lambda _: forward_s), n=100)[98]


def queries_of(model: str) -> dict[str, int]:
    return LARGE_QUERIES if model == "large" else QUERIES


@contextmanager
def client(loop: Any) -> Iterator[AsyncClient]:
    """Of the stack whose environment this process has; it belongs to the loop."""
    opened = AsyncClient.from_env()
    try:
        yield opened
    finally:
        run_in(loop, opened.close())


def arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        prog="python -m bench.loadgen",
        description=bench.loadgen.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--model", default="demo", help="demo, large, smallest or as MASKQ_MODEL")
    options.add_argument(
        "--scenario", nargs="+", choices=SCENARIOS, help="default: all of the model"
    )
    options.add_argument("--min-seconds", type=float, default=60.0, help="of each scenario")
    options.add_argument("--queries", type=int, help="of each scenario, at least")
    options.add_argument("--bound", type=float, default=15.0, help="of Server, in bare forwards")
    options.add_argument("--load", type=float, default=0.8, help="of Server, of the Offline rate")
    options.add_argument("--seconds", type=float, default=8.0, help="of each bare forward")
    options.add_argument("--print-only", action="store_true", help="write nothing to bench/results")
    options.add_argument("--logs", default="loadgen-logs", help="folder, with --print-only")
    chosen = options.parse_args()
    wanted = set(chosen.scenario or DEFAULT.get(chosen.model, SCENARIOS))
    if "Server" in wanted:
        wanted.add("Offline")  # its rate is the base of Server's target
    chosen.scenario = [name for name in SCENARIOS if name in wanted]
    return chosen


if __name__ == "__main__":
    main()
