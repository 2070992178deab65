"""One worker process with all cores, or several with fewer threads: images a second on a CPU.

`python -m bench.cpu_processes`: forward and mask of one image, without the service, in processes with a
worker's environment. The divisions of the cores take turns, since other work may share the machine.
Printed are medians over the rounds: images a second of all processes together, and the processor's
milliseconds an image, which tell how much the threads of a process cost each other.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

from bench.scenarios.pictures import scene
from maskq_worker.process.cores import Machine, divided, staying_on
from maskq_worker.process.cpu import share_environment

SIZE = (640, 480)  # px


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--processes", default="", help="numbers, by commas; default: 1, 2, 4, …")
    options.add_argument("--rounds", type=int, default=8)
    options.add_argument("--seconds", type=float, default=5.0, help="a turn")
    options.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child:
        return serve()
    os.environ.setdefault("MASKQ_MODEL", "demo")
    machine = Machine.read()
    given = [int(number) for number in chosen.processes.split(",") if number]
    numbers = given or [2**n for n in range(machine.cores.bit_length())]
    with ExitStack() as stack:
        groups = {number: Group(machine, number, stack) for number in numbers}
        for _ in range(chosen.rounds):
            for group in groups.values():
                group.take_turn(chosen.seconds)
    for number, group in groups.items():
        rate, cpu_ms = group.medians()
        threads = divided(machine, number)[0].threads
        print(f"{number} x {threads} threads: {rate:.2f} images/s, {cpu_ms:.0f} CPU-ms an image")


class Group:
    """Processes that divide the cores, and what they measured."""

    def __init__(self, machine: Machine, processes: int, stack: ExitStack) -> None:
        """Returns when all are ready. stack: ends them."""
        self._turns: list[tuple[float, float]] = []
        self._processes = []
        for share in divided(machine, processes):
            with staying_on(share.cpus):
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "bench.cpu_processes", "--child"],
                        env=os.environ | share_environment(share), text=True,
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    )
                )  # fmt: skip
            stack.callback(self._processes[-1].communicate)
        for process in self._processes:
            _answer(process)

    def take_turn(self, seconds: float) -> None:
        """All processes at once, for so long."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        answers = [_answer(process) for process in self._processes]
        images = sum(one["images"] for one in answers)
        rate = sum(one["images"] / one["seconds"] for one in answers)
        self._turns.append((rate, 1e3 * sum(one["cpu_s"] for one in answers) / images))

    def medians(self) -> tuple[float, float]:
        """Images a second, and the processor's milliseconds an image."""
        rates, costs = zip(*self._turns, strict=True)
        return statistics.median(rates), statistics.median(costs)


def serve() -> None:
    """Compute images for as many seconds as each line of the input says."""
    from PIL import Image

    from maskq_worker.model import load_segmenter
    from maskq_worker.settings import WorkerSettings

    segmenter = load_segmenter(WorkerSettings.load())
    item = segmenter.prepare(Image.open(io.BytesIO(scene(0, SIZE))).convert("RGB"))
    segmenter.run([item])
    print("{}", flush=True)
    for line in sys.stdin:
        images, began, cpu_began = 0, time.perf_counter(), time.process_time()
        while (seconds := time.perf_counter() - began) < float(line) or not images:
            segmenter.run([item])
            images += 1
        cpu_s = time.process_time() - cpu_began
        print(json.dumps({"images": images, "seconds": seconds, "cpu_s": cpu_s}), flush=True)


def _answer(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdout is not None
    if not (line := process.stdout.readline()):
        raise RuntimeError(f"a process ended with {process.wait()}")
    answer: dict[str, float] = json.loads(line)
    return answer


if __name__ == "__main__":
    main()
