"""Prometheus beside `maskq up`: its numbers are those of the run, and alerts fire and clear.

`maskq up` runs two workers, which a test kills or stops like the servers beside them. All alerts have
short times and thresholds.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pytest
import redis
from PIL import Image
from support.process_tree import command_of, descendants
from support.prometheus import Prometheus, program
from support.waiting import until
from tools.monitoring.dashboard import dashboard
from tools.monitoring.drawing import draw
from tools.monitoring.queries import Period, lines
from tools.monitoring.rules import rules

from maskq import Client, Job, JobFailed
from maskq_standalone.ports import free_port

pytestmark = [pytest.mark.monitoring, pytest.mark.timeout(600)]

WORKERS = 2
SHORT = {
    "for_critical": "3s",
    "for_warning": "4s",
    "window": "60s",
    "breaker_window": "10s",
    "queue_oldest_s": "4",
    "bad_input_share": "0.01",
    "failed_share": "0.001",
    "failed_jobs": "1",
    "webhooks_overdue_s": "3",
    "sweeper_age_s": "4",
    "event_lag": "20",
    "leases_lost": "0",
    "tickets_resent": "0",
    "restarts": "0",
    "store_errors_per_s": "0.01",
    "forward_efficiency_depth": "20",
}


@dataclass(frozen=True)
class Running:
    """`maskq up`, its clients, and a Prometheus that scrapes it."""

    up: subprocess.Popen[bytes]
    prometheus: Prometheus
    client: Client
    redis: redis.Redis
    photo: str  # an image in the bucket

    def pids(self, *words: str) -> list[int]:
        """Processes of the stack whose command has these words."""
        return [
            pid
            for pid in descendants(self.up.pid)
            if all(word in command_of(pid) for word in words)
        ]

    def workers(self) -> list[int]:
        return self.pids("-m", "maskq_worker")

    @contextmanager
    def stopped(self, pids: list[int]) -> Iterator[None]:
        """They stand still while the block runs, as on a machine that is suspended."""
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def until_fired(self, since: float, *alerts: str) -> None:
        """Each of these alerts has fired since this time of the monotonic clock."""

        def missing() -> set[str]:
            return set(alerts) - self.prometheus.fired(f"{time.monotonic() - since + 1:.0f}s")

        until(lambda: not missing(), within_s=90, every_s=0.3, otherwise=missing)

    def until_quiet(self) -> None:
        """No alert fires."""
        until(
            lambda: not self.prometheus.firing(),
            within_s=180,
            every_s=0.3,
            otherwise=self.prometheus.firing,
        )


@pytest.fixture(scope="module")
def running(smallest_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("monitoring")
    port = free_port()
    settings = {
        "MASKQ_METRICS_PORT": str(port),
        "MASKQ_LEASE_S": "3",
        "MASKQ_WEBHOOK_RETRIES_S": "1",
        "MASKQ_PRESIGNED_ALLOWED_HOSTS": "127.0.0.1",
        # As on a GPU, where batches can be small
        "MASKQ_MAX_BATCH_SIZE": "64",
    }
    command = [sys.executable, "-m", "maskq", "up", "--workers", str(WORKERS)]
    command += ["--model", str(smallest_model), "--env-file", str(folder / "env")]
    with (folder / "up.log").open("wb") as log:
        up = subprocess.Popen(command, env=os.environ | settings, stderr=log, cwd=folder)
    try:
        until((folder / "env").exists, within_s=120, otherwise=(folder / "up.log").read_text)
        environment = dict(
            line.replace("'", "").split("=", 1)
            for line in (folder / "env").read_text().splitlines()
            if "=" in line
        )
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            (folder / "key").write_text(environment["MASKQ_API_KEY"])
            gateway = environment["MASKQ_GATEWAY_URL"].removeprefix("http://")
            exporter = free_port()
            scraped = [
                {
                    "job_name": "redis",
                    "static_configs": [{"targets": [f"127.0.0.1:{exporter}"]}],
                },
                {
                    "job_name": "maskq",
                    "authorization": {"credentials_file": str(folder / "key")},
                    "static_configs": [{"targets": [gateway]}],
                },
                {
                    "job_name": "maskq-workers",
                    "static_configs": [
                        {"targets": [f"127.0.0.1:{port + 1 + n}" for n in range(WORKERS)]}
                    ],
                },
            ]
            with (
                redis_exporter(environment["MASKQ_REDIS_URL"], exporter, folder / "exporter.log"),
                Prometheus(folder, scraped, rules(SHORT)) as prometheus,
                Client.from_env(transport="direct") as client,
                redis.Redis.from_url(environment["MASKQ_REDIS_URL"], protocol=2) as server,
            ):
                first = client.submit(Image.effect_noise((320, 240), 60).convert("RGB"))
                first.wait(timeout=60)
                photo = str(first.refresh().request.image_uri)
                # What changes before the first scrape changes unseen.
                until(lambda: len(prometheus.query("maskq_worker_start_time_seconds")) == WORKERS)
                until(lambda: prometheus.query("maskq_leases_lost_total"))
                yield Running(up, prometheus, client, server, photo)
    finally:
        up.terminate()
        up.wait(timeout=60)


@contextmanager
def redis_exporter(url: str, port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as lines_of_it:
        exporter = subprocess.Popen(
            [
                program("prometheus-redis-exporter"),
                f"--redis.addr={url}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stderr=lines_of_it,
        )
    try:
        yield
    finally:
        exporter.terminate()
        exporter.wait(timeout=30)


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of an image, at a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/image.jpg"


@pytest.fixture
def unread(running: Running) -> Iterator[str]:
    """A group of event readers that reads nothing more."""
    list(running.client.events(since="0", group="nobody", idle=0.1))
    yield "nobody"
    running.client.delete_event_group("nobody")


def ended(running: Running) -> dict[tuple[str, str], float]:
    """Jobs by status and code, as Prometheus knows them."""
    found = running.prometheus.query("sum by (status, code) (maskq_jobs_total) > 0")
    return {(dict(one)["status"], dict(one).get("code", "")): n for one, n in found.items()}


def killed_with_jobs(running: Running, count: int) -> list[Job]:
    """Submit jobs, and kill a worker that waits for the image of one of them."""

    def busy() -> list[int]:
        page = running.client.list(status="running", limit=count)
        owners = {str(record.owner).rpartition(":")[2] for record in page.records}
        return [pid for pid in running.workers() if str(pid) in owners]

    with running.stopped(running.pids("maskq_standalone.servers.s3_process")):
        jobs = running.client.submit_many([running.photo] * count).jobs
        os.kill(until(busy)[0], signal.SIGKILL)
    return [*jobs]


def test_the_numbers_are_those_of_the_run(running: Running, unread: str, silent: str) -> None:
    # Given an idle deployment
    running.until_quiet()
    since = time.monotonic()
    # When 200 jobs run, some fail, some call a receiver that is dead, and a worker is killed
    jobs: list[Job] = []
    dead = f"http://127.0.0.1:{free_port()}/"
    for number in range(180):
        if number % 20 == 0:
            jobs.append(running.client.submit("s3://maskq/nowhere.png"))
        elif number == 3:
            jobs.append(running.client.submit(f"{dead}image.jpg"))
        elif number in (1, 151):
            jobs.append(running.client.submit(silent, run_timeout_s=1))
        else:
            webhook = dead if number % 50 == 2 else None
            jobs.append(running.client.submit(running.photo, webhook=webhook))
        if number == 100:
            jobs += killed_with_jobs(running, 20)
    for job in jobs:
        with suppress(JobFailed):
            job.wait(timeout=120)
    # Then Prometheus has the numbers of the run
    expected = {
        ("succeeded", ""): 189.0,  # with that of the fixture
        ("failed", "not_found"): 9.0,
        ("failed", "timeout"): 2.0,
        ("failed", "store_unavailable"): 1.0,
    }
    until(lambda: ended(running) == expected, within_s=10, otherwise=lambda: ended(running))
    running.until_fired(
        since,
        "MaskqBadInput", "MaskqJobsFailing", "MaskqLeasesLost", "MaskqWorkerRestarting",
        "MaskqWebhooksFailing", "MaskqEventLag", "MaskqOtherStoreAway",
    )  # fmt: skip
    # And the alerts clear
    running.client.delete_event_group(unread)
    running.until_quiet()


def test_every_query_of_the_dashboard_has_data(running: Running) -> None:
    period = Period.last(600, rate_interval="10s")
    panels = [one for one in json.loads(dashboard())["panels"] if "targets" in one]
    without = [
        f"{panel['title']}: {target['expr']}"
        for panel in panels
        for target in panel["targets"]
        if not any(
            line.points
            for line in lines(panel | {"targets": [target]}, running.prometheus.url, period)
        )
    ]
    assert len(panels) > 20
    assert without == []


def test_a_store_that_is_away_is_told_and_its_return_too(running: Running) -> None:
    running.until_quiet()
    since = time.monotonic()
    (store,) = running.pids("maskq_standalone.servers.s3_process")
    with running.stopped([store]):
        job = running.client.submit(running.photo)
        late = running.client.submit(running.photo, queue_ttl_s=2)
        running.until_fired(
            since, "MaskqStoreAway", "MaskqStoreErrors", "MaskqQueueOld", "MaskqJobsExpired"
        )
    job.wait(timeout=120)
    assert late.refresh().status == "expired"
    running.until_quiet()


def test_workers_and_deliverers_that_stand_still_are_told(running: Running) -> None:
    running.until_quiet()
    since = time.monotonic()
    with running.stopped([*running.workers(), *running.pids("maskq_worker.webhooks")]):
        # A job whose webhook is due at once, since its event is that it was queued
        job = running.client.submit(
            running.photo,
            webhook=f"http://127.0.0.1:{free_port()}/",
            webhook_events=["job.queued"],
        )
        # More tickets than a worker that waits for one has already been sent, and they are lost
        others = [running.client.submit(running.photo) for _ in range(40)]
        assert running.redis.delete(f"maskq.{job.refresh().model}")
        running.until_fired(
            since, "MaskqNoWorkers", "MaskqSweeperSilent", "MaskqWebhooksLate", "MaskqTargetDown"
        )
    running.until_fired(since, "MaskqTicketsResent")
    for one in (job, *others):
        one.wait(timeout=120)
    running.until_quiet()


def test_batches_that_stay_small_beside_a_long_queue_are_told(running: Running) -> None:
    running.until_quiet()
    since = time.monotonic()

    def fired() -> bool:
        (model,) = running.client.models()
        if model.queued < 300:
            running.client.submit_many([running.photo] * 300)
        seconds = time.monotonic() - since + 1
        return "MaskqSmallBatches" in running.prometheus.fired(f"{seconds:.0f}s")

    until(fired, within_s=90)
    running.until_quiet()


def test_a_redis_that_is_almost_full_is_told(running: Running) -> None:
    running.until_quiet()
    since = time.monotonic()
    used = running.redis.info("memory")["used_memory"]
    running.redis.config_set("maxmemory", used * 20 // 19)
    try:
        running.until_fired(since, "MaskqRedisMemory")
    finally:
        running.redis.config_set("maxmemory", 0)
    running.until_quiet()


def test_a_redis_that_is_away_is_told(running: Running) -> None:
    running.until_quiet()
    since = time.monotonic()
    with running.stopped(
        [pid for pid in descendants(running.up.pid) if "valkey-server" in command_of(pid)[0]]
    ):
        running.until_fired(since, "MaskqMetricsMissing")
    running.until_quiet()


def test_the_page_draws_every_panel(running: Running) -> None:
    """With PAGE=FILE it is kept, for a person to look at."""
    page = draw(running.prometheus.url, seconds=600, rate_interval="10s")
    titles = [panel["title"] for panel in json.loads(dashboard())["panels"]]
    assert [title for title in titles if escape(title) not in page] == []
    assert "no data" not in page
    if kept := os.environ.get("PAGE"):
        Path(kept).write_text(page, encoding="utf-8")
