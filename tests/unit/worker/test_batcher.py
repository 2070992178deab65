"""MicroBatcher: greedy, late-bound, and one item's fault stays with that item."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from support.waiting import until

from maskq_worker.batching.batcher import MicroBatcher
from maskq_worker.batching.errors import BatcherClosed
from maskq_worker.batching.interface import BatchContext

WAIT_S = 10.0  # far beyond what any of these takes


Run = Callable[[Sequence[int]], Sequence[int | Exception]]


@dataclass
class Done:
    """A batch that has ended already."""

    results: Sequence[int | Exception]

    def wait(self) -> Sequence[int | Exception]:
        return self.results


@dataclass
class ImmediateModel:
    """A model whose batches have ended when `submit_batch` returns."""

    run: Run

    def submit_batch(self, batch: Sequence[int], context: BatchContext) -> Done:
        return Done(self.run(batch))


class Model:
    """Doubles numbers, 13 is poison; holds each run until told to go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()

    def run(self, batch: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(batch))
        self.entered.release()
        assert self.go_on.wait(WAIT_S)
        if 13 in batch:
            raise ValueError("13 is poison")
        return [ValueError("7 has no mask") if item == 7 else 2 * item for item in batch]

    def submit_batch(self, batch: Sequence[int], context: BatchContext) -> Done:
        return Done(self.run(batch))

    def hold(self) -> None:
        self.go_on.clear()

    def wait_entered(self) -> None:
        assert self.entered.acquire(timeout=WAIT_S)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def batcher(model: Model) -> Iterator[MicroBatcher[int, int]]:
    batcher: MicroBatcher[int, int] = MicroBatcher(model, max_batch_size=4, name="model")
    batcher.start()
    yield batcher
    model.go_on.set()
    batcher.close(timeout_s=WAIT_S)


def held_while(
    model: Model, batcher: MicroBatcher[int, int], items: Sequence[int]
) -> list[Future[int]]:
    """Submit `items` while the model is busy with a first one, then let it go on."""
    model.hold()
    first = batcher.submit(0)
    model.wait_entered()
    futures = [batcher.submit(item) for item in items]
    model.go_on.set()
    assert first.result(WAIT_S) == 0
    return futures


def submitted_behind_one(
    batcher: MicroBatcher[int, int], gate: threading.Event, items: Sequence[int]
) -> tuple[Future[int], list[Future[int]]]:
    """A first item, which waits for the gate, and those that are one batch after it."""
    batcher.start()
    first = batcher.submit(0)
    until(lambda: batcher.busy_since() is not None)
    futures = [batcher.submit(item) for item in items]
    gate.set()
    return first, futures


def test_a_single_item_does_not_wait_for_company(batcher: MicroBatcher[int, int]) -> None:
    assert batcher.submit(21).result(WAIT_S) == 42


def test_what_is_ready_when_the_thread_is_free_goes_together(
    model: Model, batcher: MicroBatcher[int, int]
) -> None:
    futures = held_while(model, batcher, range(1, 7))

    assert [future.result(WAIT_S) for future in futures] == [2, 4, 6, 8, 10, 12]
    assert model.batches == [[0], [1, 2, 3, 4], [5, 6]]  # at most four, in order


def test_an_exception_among_the_results_fails_only_its_own_item(
    model: Model, batcher: MicroBatcher[int, int]
) -> None:
    one, seven, two = held_while(model, batcher, [1, 7, 2])

    assert (one.result(WAIT_S), two.result(WAIT_S)) == (2, 4)
    with pytest.raises(ValueError, match="7 has no mask"):
        seven.result(WAIT_S)
    assert model.batches == [[0], [1, 7, 2]]


def test_a_poison_item_does_not_fail_its_neighbours(
    model: Model, batcher: MicroBatcher[int, int]
) -> None:
    one, poison, two = held_while(model, batcher, [1, 13, 2])

    assert (one.result(WAIT_S), two.result(WAIT_S)) == (2, 4)
    with pytest.raises(ValueError, match="13 is poison"):
        poison.result(WAIT_S)
    assert model.batches == [[0], [1, 13, 2], [1], [13, 2], [13], [2]]
    assert batcher.submit(5).result(WAIT_S) == 10  # and the thread lives on


def test_a_batch_that_is_too_large_passes_in_parts() -> None:
    gate, sizes = threading.Event(), list[int]()

    def run(batch: Sequence[int]) -> list[int | Exception]:
        assert gate.wait(WAIT_S)
        sizes.append(len(batch))
        if len(batch) > 2:
            raise MemoryError
        return list(batch)

    batcher: MicroBatcher[int, int] = MicroBatcher(
        ImmediateModel(run), max_batch_size=8, name="model"
    )
    first, futures = submitted_behind_one(batcher, gate, range(8))

    assert first.result(WAIT_S) == 0
    assert [future.result(WAIT_S) for future in futures] == list(range(8))
    assert sizes == [1, 8, 4, 2, 2, 4, 2, 2]
    batcher.close()


def test_what_failed_holds_nothing_while_it_runs_again() -> None:
    """What `submit_batch` holds may be most of a device's memory."""

    class Item:
        pass

    gate, refs = threading.Event(), list[weakref.ref[Item]]()

    def run(batch: Sequence[int]) -> list[int | Exception]:
        assert gate.wait(WAIT_S)
        held, alive = Item(), sum(ref() is not None for ref in refs)
        refs.append(weakref.ref(held))
        if len(batch) > 1:
            try:
                raise MemoryError
            except MemoryError as error:
                raise RuntimeError("too large") from error
        return [alive] * len(batch)

    batcher: MicroBatcher[int, int] = MicroBatcher(
        ImmediateModel(run), max_batch_size=4, name="model"
    )
    first, futures = submitted_behind_one(batcher, gate, range(4))
    assert first.result(WAIT_S) == 0
    assert [future.result(WAIT_S) for future in futures] == [0] * 4
    assert len(refs) == 8  # one alone, four, two, one, one, two, one, one
    batcher.close()


def test_a_wrong_number_of_results_is_an_error() -> None:
    batcher: MicroBatcher[int, int] = MicroBatcher(
        ImmediateModel(lambda _: []), max_batch_size=2, name="model"
    )
    batcher.start()

    with pytest.raises(RuntimeError, match="1 items gave 0 results"):
        batcher.submit(1).result(WAIT_S)
    batcher.close()


def test_a_cancelled_item_is_not_run(model: Model, batcher: MicroBatcher[int, int]) -> None:
    model.hold()
    first = batcher.submit(0)
    model.wait_entered()
    waiting, canceled = batcher.submit(1), batcher.submit(2)

    assert canceled.cancel()
    assert not first.cancel()  # it runs already
    model.go_on.set()

    assert waiting.result(WAIT_S) == 2
    with pytest.raises(CancelledError):
        canceled.result(WAIT_S)
    assert model.batches == [[0], [1]]


def test_a_batch_of_cancelled_items_only_does_not_reach_the_model(
    model: Model, batcher: MicroBatcher[int, int]
) -> None:
    model.hold()
    batcher.submit(0)
    model.wait_entered()
    for future in [batcher.submit(item) for item in (1, 2, 3, 4)]:
        assert future.cancel()
    model.go_on.set()

    assert batcher.submit(5).result(WAIT_S) == 10
    assert model.batches == [[0], [5]]


def test_a_batch_weighs_no_more_than_the_limit_but_for_one_item_alone() -> None:
    model = Model()
    batcher: MicroBatcher[int, int] = MicroBatcher(
        model, max_batch_size=4, name="model", weight=lambda item: item
    )
    batcher.start()
    model.hold()
    batcher.submit(1)
    model.wait_entered()
    futures = [batcher.submit(item) for item in (2, 1, 3, 9, 1)]
    model.go_on.set()

    assert [future.result(WAIT_S) for future in futures] == [4, 2, 6, 18, 2]
    assert model.batches == [[1], [2, 1], [3], [9], [1]]
    batcher.close()


def test_initialise_runs_first_and_in_the_thread_that_runs_batches() -> None:
    threads: list[str] = []

    def run(batch: Sequence[int]) -> list[int | Exception]:
        threads.append(threading.current_thread().name)
        return list(batch)

    batcher: MicroBatcher[int, int] = MicroBatcher(
        ImmediateModel(run),
        max_batch_size=1,
        name="the-model",
        initialise=lambda: threads.append("initialise " + threading.current_thread().name),
    )
    batcher.start()
    assert threads == ["initialise the-model"]  # start() waits for it
    batcher.submit(1).result(WAIT_S)
    assert threads == ["initialise the-model", "the-model"]
    batcher.close()


def test_start_raises_what_initialise_raises() -> None:
    def initialise() -> None:
        raise LookupError("no weights")

    batcher: MicroBatcher[int, int] = MicroBatcher(
        ImmediateModel(list), max_batch_size=1, name="model", initialise=initialise
    )
    with pytest.raises(LookupError, match="no weights"):
        batcher.start()
    with pytest.raises(BatcherClosed):
        batcher.submit(1)
    batcher.close()


def test_items_submitted_during_a_failing_initialise_fail_too() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def initialise() -> None:
        entered.set()
        assert go_on.wait(WAIT_S)
        raise LookupError("no weights")

    batcher: MicroBatcher[int, int] = MicroBatcher(
        ImmediateModel(list), max_batch_size=1, name="model", initialise=initialise
    )
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(batcher.start)
        assert entered.wait(WAIT_S)
        early = batcher.submit(1)
        go_on.set()
        with pytest.raises(LookupError):
            started.result(WAIT_S)
    with pytest.raises(BatcherClosed):
        early.result(WAIT_S)


def test_nothing_is_taken_before_start_or_after_close(model: Model) -> None:
    batcher: MicroBatcher[int, int] = MicroBatcher(model, max_batch_size=1, name="model")
    with pytest.raises(BatcherClosed, match="model is not running"):
        batcher.submit(1)
    batcher.start()
    batcher.close()
    batcher.close()  # twice does no harm
    with pytest.raises(BatcherClosed):
        batcher.submit(1)


@pytest.mark.parametrize(("drain", "runs"), [(True, [[0], [1, 2]]), (False, [[0]])])
def test_close_drains_or_fails_what_waits(
    model: Model, batcher: MicroBatcher[int, int], drain: bool, runs: list[list[int]]
) -> None:
    model.hold()
    first = batcher.submit(0)
    model.wait_entered()
    waiting = [batcher.submit(1), batcher.submit(2)]
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(batcher.close, drain=drain, timeout_s=WAIT_S)
        if not drain:
            with pytest.raises(BatcherClosed):  # at once, not after the run in progress
                waiting[1].result(WAIT_S)
        model.go_on.set()
        closing.result(WAIT_S)

    assert first.result(0) == 0
    assert model.batches == runs
    if drain:
        assert [future.result(0) for future in waiting] == [2, 4]


def test_close_gives_up_on_a_model_that_hangs(
    model: Model, batcher: MicroBatcher[int, int]
) -> None:
    model.hold()
    batcher.submit(0)
    model.wait_entered()
    waiting = batcher.submit(1)

    batcher.close(timeout_s=0.05)

    with pytest.raises(BatcherClosed, match="model was closed first"):
        waiting.result(0)


# The thread's end is on purpose, and so is the word about it that pytest hears.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_end_of_the_thread_leaves_nobody_waiting(batch_size: int) -> None:
    go_on = threading.Event()

    def run(batch: Sequence[int]) -> list[int | Exception]:
        assert go_on.wait(WAIT_S)
        raise GeneratorExit

    batcher: MicroBatcher[int, int] = MicroBatcher(
        ImmediateModel(run), max_batch_size=batch_size, name="model"
    )
    batcher.start()
    futures = [batcher.submit(item) for item in range(6)]
    go_on.set()

    for future in futures:
        with pytest.raises(BatcherClosed):
            future.result(WAIT_S)
    batcher.close(timeout_s=WAIT_S)  # so that the thread ends within this test


def test_busy_since_tells_how_long_the_run_has_lasted(
    model: Model, batcher: MicroBatcher[int, int]
) -> None:
    assert batcher.busy_since() is None
    before = time.monotonic()
    model.hold()
    future = batcher.submit(1)
    model.wait_entered()
    since = batcher.busy_since()
    model.go_on.set()
    future.result(WAIT_S)

    assert since is not None
    assert before <= since <= time.monotonic()
    assert batcher.busy_since() is None


def test_the_model_hears_whether_items_wait_and_its_heartbeats_count_as_progress() -> None:
    entered, go_on, seen = threading.Event(), threading.Event(), list[bool]()
    times: list[float | None] = []

    class Asking:
        def submit_batch(self, batch: Sequence[int], context: BatchContext) -> Done:
            entered.set()
            assert go_on.wait(WAIT_S)
            seen.append(context.has_backlog)
            times.append(batcher.busy_since())
            context.heartbeat()
            times.append(batcher.busy_since())
            return Done(batch)

    batcher: MicroBatcher[int, int] = MicroBatcher(Asking(), max_batch_size=1, name="model")
    batcher.start()
    first = batcher.submit(1)
    assert entered.wait(WAIT_S)
    second = batcher.submit(2)
    go_on.set()
    assert [first.result(WAIT_S), second.result(WAIT_S)] == [1, 2]
    batcher.close()
    assert seen == [True, False]
    assert times[0] is not None
    assert times[1] is not None
    assert times[0] < times[1]


def test_a_heartbeat_outside_of_a_batch_is_ignored(model: Model) -> None:
    """A warm-up runs forwards, too: the watchdog would wait for their end for ever."""
    batchers: list[MicroBatcher[int, int]] = []
    batcher: MicroBatcher[int, int] = MicroBatcher(
        model,
        max_batch_size=1,
        name="model",
        initialise=lambda: batchers[0].heartbeat(),
    )
    batchers.append(batcher)
    batcher.start()
    assert batcher.busy_since() is None
    batcher.close()


def test_on_batch_hears_every_batch_and_cannot_break_it() -> None:
    sizes: list[int] = []

    def on_batch(size: int) -> None:
        sizes.append(size)
        raise KeyError("a metric is missing")

    batcher: MicroBatcher[int, int] = MicroBatcher(
        ImmediateModel(list), max_batch_size=4, name="model", on_batch=on_batch
    )
    batcher.start()
    assert batcher.submit(3).result(WAIT_S) == 3
    assert sizes == [1]
    batcher.close()


def test_an_item_hears_of_each_start_of_its_batch_and_cannot_break_it(
    model: Model, batcher: MicroBatcher[int, int]
) -> None:
    started: dict[int, list[tuple[int, int]]] = {1: [], 13: []}

    def on_start(batch: int, items: int) -> None:
        started[1].append((batch, items))
        raise KeyError("a span is missing")

    model.hold()
    first = batcher.submit(0)
    model.wait_entered()
    one = batcher.submit(1, on_start)
    poison = batcher.submit(13, lambda *told: started[13].append(told))
    model.go_on.set()
    assert (first.result(WAIT_S), one.result(WAIT_S)) == (0, 2)
    with pytest.raises(ValueError, match="13 is poison"):
        poison.result(WAIT_S)
    # The pair runs again in halves. An error of one item's report keeps the other's of that batch.
    assert started[1] == [(2, 2), (3, 1)]
    assert started[13][-1] == (4, 1)


def test_many_threads_each_get_their_own_answer(batcher: MicroBatcher[int, int]) -> None:
    numbers = [n for n in range(400) if n not in (7, 13)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: batcher.submit(n).result(WAIT_S), numbers))
    assert answers == [2 * n for n in numbers]


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_batch_size is 0"):
        MicroBatcher(ImmediateModel(list), max_batch_size=0, name="model")
