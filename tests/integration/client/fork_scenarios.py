"""What a program does with a client around a fork; test_client_forks.py runs each of these programs.

`python fork_scenarios.py NAME`, with the settings in the environment. Ends with 0 when all is right.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from maskq import AsyncClient, Client, JobFailed, MaskqError
from maskq.client.waiting import waits
from maskq.contract.locations import S3Uri
from maskq.ledger import calls

CHILDREN = 4
OBJECTS = 25
MODEL = "demo"
IMAGE = "s3://photos/a.png"
LIMIT_S = 40  # of a child: one that hangs is ended by its alarm

# Only a wake-up ends a wait: without one, no periodic check finds the change, and the wait times out.
waits.RECHECK_S = 3600.0

# As in a program that makes its client at import.
client = Client.from_env()


def main() -> None:
    signal.alarm(2 * LIMIT_S)
    client.session.run(calls.register_model(MODEL, {}))
    SCENARIOS[sys.argv[1]]()


# --- what parent and children do ----------------------------------------------------------------------


def body_of(name: str) -> bytes:
    """Bytes of its own for each object, of different lengths."""
    return (name.encode() + b" ") * (100 + 37 * (sum(name.encode()) % 97))


def place_of(name: str) -> S3Uri:
    return S3Uri(client.settings.s3_bucket, client.settings.output_prefix) / name


def work(who: str) -> None:
    """Store, submit, wait, read; everything is checked to be one's own."""
    for number in range(OBJECTS):
        name = f"{who}-{number}"
        client.objects.put(place_of(name), body_of(name), "text/plain")
        assert client.objects.get(place_of(name)) == body_of(name), f"{who} read another's object"
        common = f"common-{number}"
        assert client.objects.get(place_of(common)) == body_of(common), f"{who} read another's"
        if number % 5 == 0:
            job = client.submit(IMAGE, metadata={"who": name})
            record = client.get(job.id).record
            assert record
            assert record.request.metadata == {"who": name}
            wait_for(job)


def wait_for(job: Any) -> None:
    """Until it has ended, which happens while it waits."""
    ending = threading.Timer(0.05, job.cancel)
    ending.start()
    with pytest.raises(JobFailed):
        job.wait(timeout=20)
    ending.join()


def prepare() -> None:
    for number in range(OBJECTS):
        name = f"common-{number}"
        client.objects.put(place_of(name), body_of(name), "text/plain")
        client.objects.get(place_of(name))


def fork(do: Callable[[], None], *, leave: Callable[[int], None] = os._exit) -> int:
    """A child that does this and ends, with 0 if nothing was raised."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(LIMIT_S)
    try:
        do()
    except BaseException as error:  # noqa: BLE001 - a child must never go on as its parent
        sys.stderr.write(f"child: {error!r}\n")
        sys.stderr.flush()
        os._exit(1)
    leave(0)
    raise AssertionError


def join(pids: list[int]) -> None:
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    assert statuses == [0] * len(pids), f"children ended with {statuses}"


@contextmanager
def waiting_thread() -> Iterator[None]:
    """Another thread of the parent waits all the time; at the end it is woken at once."""
    job = client.submit(IMAGE)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(job.wait, timeout=60)
        time.sleep(0.2)
        yield
        assert not waiting.done()
        job.cancel()
        with pytest.raises(JobFailed):
            waiting.result(20)


# --- scenarios ----------------------------------------------------------------------------------------


def children_at_work() -> None:
    prepare()
    with waiting_thread():
        pids = [fork(functools.partial(work, f"child{n}")) for n in range(CHILDREN)]
        work("parent")
        join(pids)
    work("later")


def a_child_closes() -> None:
    """By sys.exit, as a server's worker that was forked, with atexit and finalizers."""

    def close() -> None:
        client.close()
        work(f"closer-{os.getpid()}")
        client.close()

    prepare()
    with waiting_thread():
        join([fork(close, leave=sys.exit), fork(lambda: None, leave=sys.exit)])
        work("parent")
    # With TLS or without: the server still has every connection of the parent.
    work("later")


def locks_of(root: object) -> list[Any]:
    """Every lock that can be reached from it, those of libraries' objects too."""
    kinds = (type(threading.Lock()), type(threading.RLock()))
    seen, found, todo = set[int](), list[Any](), [root]
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, type | types.ModuleType | types.FrameType):
            continue
        seen.add(id(one))
        if isinstance(one, kinds):
            found.append(one)
        elif isinstance(one, types.FunctionType):
            todo += one.__closure__ or ()
        else:
            todo += gc.get_referents(one)
    return found


def held_locks() -> None:
    prepare()
    work("before")
    locks = locks_of(client)
    assert len(locks) > 5
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        taken = [lock for lock in locks if lock.acquire(timeout=0.5)]
        held.set()
        release.wait()
        for lock in taken:
            lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    pids = [fork(functools.partial(work, f"child{n}")) for n in range(2)]
    release.set()
    holder.join()
    join(pids)
    work("after")


def during_an_import() -> None:
    """A thread's first upload imports boto3; meanwhile the program forks."""
    first = threading.Thread(target=prepare)
    first.start()
    pids = []
    for number in range(8):
        pids.append(fork(functools.partial(reads_one, f"child{number}")))
        time.sleep(0.04)
    first.join()
    join(pids)


def reads_one(who: str) -> None:
    client.objects.put(place_of(who), body_of(who), "text/plain")
    assert client.objects.get(place_of(who)) == body_of(who)


def event_loops() -> None:
    awaited = AsyncClient.from_env()

    async def submit_and_wait() -> None:
        job = await awaited.submit(IMAGE)
        ending = asyncio.create_task(ended(job))
        with pytest.raises(JobFailed):
            await job.wait(timeout=20)
        await ending

    async def ended(job: Any) -> None:
        await asyncio.sleep(0.05)
        await job.cancel()

    async def parent() -> None:
        await submit_and_wait()
        # The child leaves the parent's loop alone and runs one of its own.
        own_loop = fork(lambda: asyncio.run(submit_and_wait()))
        same_loop = fork(expect_an_error)
        await submit_and_wait()
        await asyncio.to_thread(join, [own_loop, same_loop])
        await submit_and_wait()

    def expect_an_error() -> None:
        with pytest.raises(MaskqError, match=r"asyncio\.run\(\)"):
            awaited.submit(IMAGE).send(None)

    asyncio.run(parent())
    join([fork(lambda: asyncio.run(submit_and_wait()))])
    asyncio.run(submit_and_wait())


def processes() -> None:
    """multiprocessing: forked with the client at hand, spawned with the client as an argument."""
    prepare()
    with waiting_thread():
        forked = [
            multiprocessing.get_context("fork").Process(target=work, args=(f"fork{n}",))
            for n in range(2)
        ]
        spawned = multiprocessing.get_context("spawn").Process(target=by_argument, args=(client,))
        for process in (*forked, spawned):
            process.start()
        work("parent")
        for process in (*forked, spawned):
            process.join()
            assert process.exitcode == 0
    for handle in (client.submit(IMAGE), client.submit_many([IMAGE])):
        with pytest.raises(MaskqError, match=r"client\.get\(job_id\)"):
            pickle.dumps(handle)


def by_argument(given: Client) -> None:
    job = given.submit(IMAGE, metadata={"by": "argument"})
    assert job.refresh().request.metadata == {"by": "argument"}


def threads() -> None:
    """As Django's: one client of a module, threads that come and go."""
    prepare()
    for round_ in range(2):
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, [f"thread{round_}-{n}" for n in range(16)]))


SCENARIOS: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        children_at_work, a_child_closes, held_locks, during_an_import, event_loops, processes, threads,
    )
}  # fmt: skip

if __name__ == "__main__":
    main()
