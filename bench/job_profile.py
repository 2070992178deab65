"""Where a job's processor time goes, stage by stage: `python -m bench.job_profile --model demo`.

A real stack (Redis, S3) without a worker; this process runs its jobs itself, one after another in one
thread, by the worker's own JobRunner. So the time of a stage is that of one thread (`thread_time`) and
does not depend on what else the machine does: wait times do not count. Work of other threads (the
model's, obstore's) and of the decoding process is listed below the stages. `--functions 40` prints
cProfile's list instead, by the time of a function itself.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from bench.null_model import without_forward
from bench.scenarios import pictures
from bench.scenarios.service import Service, running
from maskq_worker.batching.batcher import MicroBatcher
from maskq_worker.broker.app import connect_store
from maskq_worker.decoding import Decoder, make_decoder
from maskq_worker.decoding.pool import ProcessDecoder
from maskq_worker.jobs.leases import Leases
from maskq_worker.jobs.runner import JobRunner, Succeeded
from maskq_worker.jobs.stages import Stages
from maskq_worker.model import load_segmenter
from maskq_worker.settings import WorkerSettings

CONCURRENCY = 1
_STAGES = ("_fetch", "_decode", "_prepare", "_compute", "_encode", "_write", "_result", "_commit")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--model", default="smallest", help="smallest, demo, large, or MASKQ_MODEL"
    )
    options.add_argument("--null", action="store_true", help="the forward is free")
    options.add_argument("--size", default="640x480", help="of the image, px")
    options.add_argument("--jobs", type=int, default=60)
    options.add_argument("--functions", type=int, default=0)
    chosen = options.parse_args()
    size = tuple(map(int, chosen.size.split("x")))
    with running(chosen.model, workers=0) as service:
        settings = WorkerSettings.load()
        segmenter = load_segmenter(settings)
        if chosen.null:
            without_forward(segmenter)
        with runner(service, settings, segmenter) as (jobs, decoder):
            profile(service, jobs, decoder, segmenter.info.name, chosen, size)


@contextmanager
def runner(
    service: Service, settings: WorkerSettings, segmenter: Any
) -> Iterator[tuple[JobRunner, Decoder]]:
    """A worker's parts without Celery."""
    decoder = make_decoder(settings, concurrency=CONCURRENCY)
    batcher = MicroBatcher(segmenter, max_batch_size=1, name="maskq-model")
    batcher.start()
    leases = Leases(service.ledger, settings.lease_s)
    store = connect_store(settings, CONCURRENCY)
    jobs = JobRunner(
        settings, ledger=service.ledger, store=store, decoder=decoder, segmenter=segmenter,
        batcher=batcher, leases=leases, owner="bench",
    )  # fmt: skip
    register(service, segmenter.info)
    try:
        yield jobs, decoder
    finally:
        batcher.close()
        decoder.close()
        store.close()


def register(service: Service, info: Any) -> None:
    from maskq_worker.jobs.presence import Presence

    Presence(service.ledger, info, "bench").register()


def profile(
    service: Service, jobs: JobRunner, decoder: Decoder, model: str, chosen: Any, size: Any
) -> None:
    uris = pictures.stored(service, chosen.jobs, size=size)
    spent: dict[str, list[float]] = defaultdict(list)
    for name in _STAGES:
        setattr(Stages, name, timed(getattr(Stages, name), name.removeprefix("_"), spent))
    Succeeded.follow_up = timed(Succeeded.follow_up, "follow_up", spent)  # type: ignore[method-assign]
    for _ in range(2):  # the first is a warm-up
        spent.clear()
        service.client.submit_many(uris)
        profiler = cProfile.Profile(time.thread_time)
        before = cpu_s(decoder)
        began, thread_began = time.process_time(), time.thread_time()
        if chosen.functions:
            profiler.enable()
        while len(spent["follow_up"]) < chosen.jobs:
            jobs.run(model)
        profiler.disable()
        thread_s, process_s = time.thread_time() - thread_began, time.process_time() - began
        decoding_s = cpu_s(decoder) - before
    if chosen.functions:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(chosen.functions)
        return
    each = {name: 1e3 * statistics.median(values) for name, values in spent.items()}
    each["ledger and rest"] = 1e3 * thread_s / chosen.jobs - sum(each.values())
    for name, ms in each.items():
        print(f"{name:<24}{ms:8.3f} ms")
    print(f"{'whole, job thread':<24}{1e3 * thread_s / chosen.jobs:8.3f} ms")
    print(f"{'other threads':<24}{1e3 * (process_s - thread_s) / chosen.jobs:8.3f} ms")
    print(f"{'decoding process':<24}{1e3 * decoding_s / chosen.jobs:8.3f} ms")


def timed(
    method: Callable[..., Any], name: str, spent: dict[str, list[float]]
) -> Callable[..., Any]:
    """The method, which notes the time of the calling thread."""

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        began = time.thread_time()
        try:
            return method(*args, **kwargs)
        finally:
            spent[name].append(time.thread_time() - began)

    return call


def cpu_s(decoder: Decoder) -> float:
    """Of the decoding processes."""
    pids = decoder.pids if isinstance(decoder, ProcessDecoder) else []
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


if __name__ == "__main__":
    main()
