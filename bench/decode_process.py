"""What decoding in a process of its own costs a job, beside decoding in the job's thread.

`python -m bench.decode_process`. Both ways decode the same JPEG by turns, in rounds; printed are the
median and the best of the rounds (on a busy machine the best is the least disturbed): milliseconds
until the pixels are there, and milliseconds of processor time, which is that of the worker and the
decoding process together. With `--threads 4` as many threads decode at one time.
"""

from __future__ import annotations

import argparse
import io
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.decode_samples import photo
from maskq_worker.decoding import DecodeLimits, Decoder, ThreadDecoder
from maskq_worker.decoding.pool import ProcessDecoder
from maskq_worker.settings import WorkerSettings

Round = tuple[float, float]  # latency and processor time of an image, ms


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", default="640x480", help="of the image, px")
    options.add_argument("--format", default="JPEG")
    options.add_argument("--images", type=int, default=100, help="a round")
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--threads", type=int, default=1)
    chosen = options.parse_args()
    width, height = map(int, chosen.size.split("x"))
    buffer = io.BytesIO()
    photo(width, height).save(buffer, chosen.format)
    limits = DecodeLimits.of(WorkerSettings.load())
    processes = ProcessDecoder(limits, chosen.threads)
    ways: dict[str, Decoder] = {"thread": ThreadDecoder(limits), "process": processes}
    rounds: dict[str, list[Round]] = {way: [] for way in ways}
    try:
        for way in ways:  # warm up
            run(ways[way], processes, buffer.getvalue(), chosen.images, chosen.threads)
        for number in range(chosen.rounds):
            for way in (list(ways), list(reversed(ways)))[number % 2]:
                rounds[way].append(
                    run(ways[way], processes, buffer.getvalue(), chosen.images, chosen.threads)
                )
    finally:
        processes.close()
    print(f"{chosen.format} of {chosen.size}, {buffer.tell()} bytes, {chosen.threads} thread(s)")
    for name, choose in (("median round", statistics.median), ("best round", min)):
        waits, cpu = ({way: choose(one[i] for one in rounds[way]) for way in ways} for i in (0, 1))
        for way in ways:
            print(f"{name:<13} {way:<8} {waits[way]:8.3f} ms until done {cpu[way]:8.3f} CPU-ms")
        more = [each["process"] - each["thread"] for each in (waits, cpu)]
        print(f"{name:<13} process costs {more[0]:+.3f} ms, {more[1]:+.3f} CPU-ms an image")


def run(
    decoder: Decoder, processes: ProcessDecoder, data: bytes, images: int, threads: int
) -> Round:
    waits: list[float] = []
    lock = threading.Lock()

    def one(_: int) -> None:
        began = time.perf_counter()
        decoder.decode(data, lambda _: None)
        with lock:
            waits.append(time.perf_counter() - began)

    before = cpu_s(processes)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(images)))
    return statistics.median(waits) * 1000, (cpu_s(processes) - before) * 1000 / images


def cpu_s(processes: ProcessDecoder) -> float:
    """Of this process and of the decoding processes, to the nanosecond (/proc/PID/schedstat)."""
    children = (
        int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in processes.pids
    )
    return time.process_time() + sum(children) / 1e9


if __name__ == "__main__":
    main()
