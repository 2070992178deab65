"""The previous release and this version side by side on one Redis and S3: `make upgrade-test`.

Callers of both versions submit while the workers are replaced one by one: from the previous release to
this version, and back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chaos.conftest import Fleet
from support.previous_version import NoHistory, build
from support.waiting import until

from maskq import Client, JobStatus
from maskq_standalone.stack import Stack

pytestmark = [pytest.mark.upgrade, pytest.mark.timeout(600)]

# Runs in a process of its own, in either version. It submits until its stdin is closed.
CALLER = """
import json, select, sys
import maskq
name, image = sys.argv[1:]
with maskq.Client.from_env() as client:
    jobs = []
    while not select.select([sys.stdin], [], [], 0.3)[0]:
        number = len(jobs)
        jobs.append(client.submit(image, tenant=name if number % 2 else None, metadata={"by": name},
            priority=("high", "normal", "low")[number % 3], outputs=["mask", "stats"],
            idempotency_key=f"{name}-{number}"))
    batch = client.submit_many([image] * 5)
    failed = {}
    for number, job in enumerate([*jobs, *batch.jobs]):
        try:
            result = job.wait(timeout=90)
            assert number % 10 or result.mask().size == (64, 48)
        except Exception as error:
            failed[job.id] = repr(error)
    listed = [one.id for one in client.list_all()]
    print(json.dumps({"module": maskq.__file__, "submitted": [job.id for job in [*jobs, *batch.jobs]],
        "failed": failed, "listed": len(listed)}))
"""


@dataclass(frozen=True)
class Version:
    name: str
    env: dict[str, str]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Version]:
    try:
        packages = build(tmp_path_factory.mktemp("previous"))
    except NoHistory as error:
        pytest.fail(str(error))
    old = Version("old", {"PYTHONPATH": str(packages)})
    look = "import maskq, maskq_worker; print(maskq.__file__, maskq_worker.__file__)"
    seen = subprocess.run(
        [sys.executable, "-c", look], env=os.environ | old.env, capture_output=True, text=True
    ).stdout
    assert seen.count(str(packages)) == 2, seen
    return {"old": old, "new": Version("new", {})}


@pytest.fixture
def fleet(smallest_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    with Stack(workers=0, pinned=True, model=str(smallest_model)) as stack:
        for name, value in stack.environment.items():
            monkeypatch.setenv(name, value)
        with Client.from_env() as client:
            yield Fleet(stack, client)


@contextmanager
def caller(version: Version, image: str) -> Iterator[dict[str, Any]]:
    """A caller of this version; what it saw is in the dictionary after the block."""
    seen: dict[str, Any] = {}
    process = subprocess.Popen(
        [sys.executable, "-c", CALLER, version.name, image],
        env=os.environ | version.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield seen
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        seen |= json.loads(out)
    finally:
        process.kill()
        process.wait()


def roll(fleet: Fleet, version: Version, pids: dict[str, set[int]]) -> None:
    """Replace each worker by one of this version: the new one starts before the former stops."""
    for former in list(fleet.stack.workers):
        pids[version.name].add(fleet.stack.start_worker(version.env).pid)
        former.terminate()
        former.child.wait_ended(90)
        assert former.returncode == 0
        fleet.stack.workers.remove(former)
        ended_at_least(fleet, 10)


def ended_at_least(fleet: Fleet, more: int) -> None:
    """Until so many jobs more have ended: each mix of versions does some of the work."""

    def ended() -> int:
        return sum(one.ended for one in fleet.records())

    begin = ended()
    until(lambda: ended() >= begin + more, every_s=0.2)


def test_no_job_is_lost_or_fails_from_old_to_new_and_back(
    fleet: Fleet, versions: dict[str, Version]
) -> None:
    old, new = versions["old"], versions["new"]
    image = fleet.stored_image()
    pids = {"old": {one.pid for one in fleet.stack.start_workers(2, old.env)}, "new": set[int]()}
    began = time.monotonic()
    with caller(old, image) as of_old, caller(new, image) as of_new:
        ended_at_least(fleet, 10)
        roll(fleet, new, pids)
        roll(fleet, old, pids)
    submitted = [*of_old["submitted"], *of_new["submitted"]]
    assert of_old["module"] != of_new["module"]
    assert of_old["failed"] == of_new["failed"] == {}
    records = {one.id: one for one in fleet.records()}
    assert records.keys() == {*submitted}
    assert Counter(one.status for one in records.values()) == {JobStatus.SUCCEEDED: len(submitted)}
    fleet.one_terminal_event_each(submitted)
    by = Counter(
        name
        for one in records.values()
        for name in pids
        if int(str(one.owner).rpartition(":")[2]) in pids[name]
    )
    assert by["old"] >= 20
    assert by["new"] >= 20
    # A worker that stops releases what it cannot finish in time, without a charge
    assert {one.charges for one in records.values()} == {0}
    attempts = dict(Counter(one.attempt for one in records.values()))
    print(
        f"\nold to new and back in {time.monotonic() - began:.0f} s: {len(of_old['submitted'])} jobs "
        f"of the old client, {len(of_new['submitted'])} of the new one; {by['old']} done by old "
        f"workers, {by['new']} by new ones; 0 failed, 0 lost, attempts {attempts}"
    )
