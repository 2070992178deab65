"""Whatever anybody pushes on a worker's lists, good jobs are done after it: no thread is lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import redis
from acceptance.deaf_worker import NOTICED_S
from demo_scenes.scenes import draw
from envelopes import MALFORMED, envelope
from support.waiting import stays, until

from maskq import Client, JobStatus
from maskq.process.health import FRESH_S
from maskq_standalone.stack import Stack


def test_no_malformed_message_costs_a_thread(fresh_stack: Stack, fresh_client: Client) -> None:
    # Given a worker with one thread: the first that is lost makes it deaf
    worker = fresh_stack.start_worker(env={"MASKQ_CONCURRENCY": "1"})
    scene = draw(77, size=(64, 48)).image
    with redis.Redis.from_url(fresh_stack.redis.url) as raw:
        # When every malformed message comes by both lists
        for message in MALFORMED.values():
            raw.lpush("maskq", message)
            raw.lpush("maskq.smallest", message)
        raw.lpush("maskq", *[json.dumps(envelope(eta="2099-01-01T00:00:00+00:00"))] * 3)

        # Then a good job is done, by the same process
        assert fresh_client.segment(scene, timeout=60).size == scene.size
        assert worker.child.alive
        assert worker.is_ready()

        # And what was refused is kept for a look, each with its reason
        kept = [json.loads(entry) for entry in raw.lrange("maskq:refused", 0, -1)]
    assert len(kept) == 100  # the last of some 150
    assert all(entry["reason"] and entry["queue"] in ("maskq", "maskq.smallest") for entry in kept)
    assert max(len(json.dumps(entry)) for entry in kept) < 20_000
    waiting = fresh_client.list(status=JobStatus.QUEUED).records
    assert [record.not_before_ms for record in waiting] == [4070908800000]


def test_the_health_file_of_a_deaf_worker_goes_stale(smallest_model: Path) -> None:
    # Given a worker that is up and takes nothing, for want of work
    command = (sys.executable, str(Path(__file__).with_name("deaf_worker.py")))
    model = str(smallest_model)
    with Stack(workers=1, pinned=True, model=model, worker_command=command) as stack:
        (worker,) = stack.workers
        stays(worker.is_ready, for_s=2 * NOTICED_S)

        # When there is some
        with redis.Redis.from_url(stack.redis.url) as raw:
            raw.lpush("maskq", json.dumps(envelope()))

        # Then its health file is not touched any more, and it says so
        until(lambda: not worker.is_ready(), within_s=FRESH_S + 15)
        assert worker.child.alive
        assert "this worker takes none" in worker.child.log_tail()
