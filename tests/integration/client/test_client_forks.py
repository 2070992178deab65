"""A client that was used before its process forked: everything is new in the child, and the parent's is
untouched. Each scenario of fork_scenarios.py is a program of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from maskq import Client
from maskq.ledger import calls

SCENARIOS = Path(__file__).with_name("fork_scenarios.py")


def run(name: str, environment: dict[str, str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(SCENARIOS), name],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr


def test_children_of_a_fork_read_their_own_objects(environment: dict[str, str]) -> None:
    """Of gunicorn --preload, say; the parent goes on, and its thread that waits is woken."""
    run("children_at_work", environment)


def test_a_child_that_closes_its_client_does_not_disturb_the_parent(
    environment: dict[str, str],
) -> None:
    run("a_child_closes", environment)


def test_locks_that_another_thread_held_at_the_fork_do_not_stop_the_child(
    environment: dict[str, str],
) -> None:
    run("held_locks", environment)


def test_a_fork_while_another_thread_imports_boto3_does_not_stop_the_child(
    environment: dict[str, str],
) -> None:
    run("during_an_import", environment)


def test_a_child_of_an_event_loops_process_runs_a_loop_of_its_own(
    environment: dict[str, str],
) -> None:
    run("event_loops", environment)


def test_multiprocessing_forks_and_spawns(environment: dict[str, str]) -> None:
    run("processes", environment)


def test_threads_share_a_client_of_a_module(environment: dict[str, str]) -> None:
    run("threads", environment)


def test_a_celery_prefork_worker_shares_nothing_of_a_client_made_at_import(
    environment: dict[str, str],
) -> None:
    # Given an application whose import uses the client, and a worker of it with three processes
    with Client.from_env() as client:
        client.session.run(calls.register_model("demo", {}))
    app = [sys.executable, "-m", "celery", "-A", "prefork_app", "--workdir", str(SCENARIOS.parent)]
    command = [*app, "worker", "--pool", "prefork", "--concurrency", "3", "--loglevel", "WARNING"]
    worker = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        # When tasks run in all of them at once
        script = (
            "import json, prefork_app as a;"
            "r = [a.process.delay(f'image-{n}') for n in range(30)];"
            "print(json.dumps([one.get(timeout=30) for one in r]))"
        )
        told = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **environment, "PYTHONPATH": str(SCENARIOS.parent)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        # Then each has read what it stored
        assert told.returncode == 0, told.stderr
        answers = json.loads(told.stdout)
        assert [answer[1:] for answer in answers] == [[True, f"image-{n}"] for n in range(30)]
        assert len({pid for pid, *_ in answers}) > 1
    finally:
        worker.terminate()
        worker.wait(30)
