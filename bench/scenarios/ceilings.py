"""What a worker cannot exceed: the store with nothing else to do, and Celery with nothing to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.scenarios.service import ROOT, Service
from maskq.contract import JobRecord, Output
from maskq.contract.ids import new_id
from maskq.contract.locations import S3Uri
from maskq.contract.storage_layout import MANIFEST
from maskq_worker.settings import WorkerSettings
from maskq_worker.storage.object_store import ObjectStore

_THREADS = 8


@dataclass(frozen=True, slots=True)
class Ceiling:
    jobs_a_second: float
    cpu_s: float  # of the process that did it, for all jobs
    store_cpu_s: float = 0.0  # of the S3 server meanwhile


def store(service: Service, record: JobRecord, jobs: int) -> Ceiling:
    """The requests of a job (GET image, PUT mask, create manifest) by a worker's own module.

    record: of a succeeded job, whose objects are read and written again.
    """
    settings = WorkerSettings.load()
    home = S3Uri(settings.s3_bucket, settings.output_prefix)
    objects = ObjectStore(settings.s3_endpoint_url, connections=_THREADS, home=home)
    image, limit = S3Uri.parse(record.request.image_uri), settings.max_image_bytes
    assert record.result is not None
    mask = objects.get(S3Uri.parse(record.result.outputs[Output.MASK]), max_bytes=limit).body
    manifest = objects.get(settings.layout.of(record).manifest, max_bytes=limit).body

    run_id = new_id()

    def one(number: int) -> None:
        place = S3Uri(settings.s3_bucket, f"bench/ceiling/{run_id}/{number}")
        objects.get(image, max_bytes=limit)
        objects.put(place / "mask.png", mask, "image/png")
        objects.create(place / MANIFEST, manifest, "application/json")

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(one, range(-_THREADS, 0)))  # connections
        before, began = service.cost(), time.perf_counter()
        list(pool.map(one, range(jobs)))
        took, cost = time.perf_counter() - began, service.cost().since(before)
    objects.close()
    return Ceiling(jobs / took, cost.client, cost.store)


def celery(service: Service, jobs: int) -> Ceiling:
    """A task that does nothing, in a worker process with a maskq worker's Celery settings."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.scenarios.empty_task", "--jobs", str(jobs)],
        env=os.environ | {"MASKQ_KEY_PREFIX": "ceiling"},
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return Ceiling(**json.loads(done.stdout.splitlines()[-1]))
