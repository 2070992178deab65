"""Loads, warms up and tests the model before messages are consumed; drains the worker at the end."""

from __future__ import annotations

import logging
import os
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from celery import bootsteps, signals
from celery.worker import state

from maskq.contract import FailureCode, JobFailure
from maskq.errors import InvalidRequest, MaskqError, QueueFull, StoreUnavailable
from maskq.inert import print_error
from maskq.ledger import Ledger, calls
from maskq.ledger.calls.models import REGISTER_EVERY_S
from maskq.ledger.calls.queueing.waiting import STORE_AWAY_EVERY_S
from maskq.ledger.connections.requirements import Role, await_met, refuse_unfit
from maskq.process import EX_CONFIG
from maskq.process.health import HealthFile
from maskq.safe_http.deadline import shut_down_all
from maskq.telemetry import trace_export
from maskq_worker.batching.batcher import MicroBatcher
from maskq_worker.broker.consumer_watch import ConsumerWatch
from maskq_worker.broker.process_metrics import ProcessMetrics
from maskq_worker.decoding import Decoder, make_decoder
from maskq_worker.errors import JobError, PermanentError
from maskq_worker.jobs.leases import Leases, Repeating, Sweeper
from maskq_worker.jobs.presence import Presence
from maskq_worker.jobs.retention import Retention
from maskq_worker.jobs.runner import JobRunner
from maskq_worker.jobs.watchdog import Watchdog, end_process
from maskq_worker.model import (
    ModelInput,
    PendingOutput,
    Segmenter,
    load_segmenter,
    run_self_test,
    warm_up,
)
from maskq_worker.model.checkpoint.folder import served_name
from maskq_worker.process.malloc import trim_malloc
from maskq_worker.settings import WorkerSettings
from maskq_worker.storage.object_store import ObjectStore
from maskq_worker.telemetry.counters import ProcessCounters

logger = logging.getLogger(__name__)

_CUT_OFF_S = 2.0  # for threads whose connections are shut down
_TRIM_MALLOC_EVERY_S = 5.0
_AWAY_PAUSE_S = 1.0


class ModelStep(bootsteps.StartStopStep):
    """Starts before the consumer and stops after it. Jobs in progress are then finished or released."""

    requires = ("celery.worker.components:Pool", "celery.worker.components:Timer")

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._worker = worker
        self._settings: WorkerSettings = worker.app.settings
        self._health = HealthFile(self._settings.health_file)

    def start(self, worker: Any) -> None:
        try:
            self._start(worker)
        except MaskqError as error:
            print_error(f"maskq worker: {error}")
            raise SystemExit(EX_CONFIG) from error

    def _start(self, worker: Any) -> None:
        began = time.monotonic()
        self._start_ledger()
        store: ObjectStore = worker.app.object_store
        self._load(worker, store)
        self._counters = ProcessCounters(self._segmenter.max_batch_size)
        self._start_model(worker)
        self._start_upkeep(store)
        self._make_runner(worker, store)
        self._await_registered()
        self._watch_consumer(worker)
        self._heartbeats.start()
        signals.worker_ready.connect(self._on_ready, weak=False)
        info = self._segmenter.info
        logger.info(
            "%s on %s (%s, %s) ready after %.1f s",
            info.name, info.device, info.backend, info.dtype, time.monotonic() - began,
        )  # fmt: skip

    def _start_ledger(self) -> None:
        """Before the model is loaded, which takes long."""
        settings = self._settings
        self._ledger = Ledger.of(settings)
        # A Redis that is unavailable is waited for once the model is loaded.
        refuse_unfit(
            self._ledger,
            Role.WORKER,
            served_name(settings.model or "", settings.model_name),
        )
        # The sweeper now: a killed process may have left jobs.
        self._sweeper = Sweeper(self._ledger, settings.lease_s, settings.event_retention_s)
        self._sweeper.start()
        self._leases = Leases(self._ledger, settings.lease_s)
        self._leases.start()

    def _load(self, worker: Any, store: ObjectStore) -> None:
        """Load the model and start the decoders, while the store is checked."""
        settings = self._settings
        # OpenMP's helpers that loading takes end with its thread. Those of one thread, the model's, may
        # look out for their next task; where there are those of several, libgomp lets all sleep.
        with ThreadPoolExecutor(2, "maskq-loading") as loading:
            loaded = loading.submit(load_segmenter, settings, on_device_lost=_end_for)
            decoder = loading.submit(_make_decoder, settings, worker.app.capacity.concurrency)
            self._check_store(store, loaded)
            self._segmenter: Segmenter = loaded.result()
            self._decoder = decoder.result()

    def _start_model(self, worker: Any) -> None:
        """Warm the model up and test it in the thread that will own it."""
        self._batcher: MicroBatcher[ModelInput, PendingOutput] = MicroBatcher(
            self._segmenter,
            max_batch_size=self._segmenter.max_batch_size,
            name="maskq-model",
            max_running_batches=self._batches(worker),
            side_by_side=self._segmenter.is_side_by_side,
            weight=self._segmenter.weight,
            initialise=self._make_ready,
            on_batch=self._counters.batch_started,
        )
        self._batcher.start()
        self._watchdog = Watchdog(self._batcher, self._settings.forward_timeout_s)
        self._watchdog.start()

    def _batches(self, worker: Any) -> int:
        """How many may run at the same time: on a CPU one, if the network cannot compute several."""
        on_gpu = self._segmenter.info.device.startswith("cuda")
        return worker.app.capacity.batches if on_gpu or self._segmenter.is_side_by_side else 1

    def _start_upkeep(self, store: ObjectStore) -> None:
        self._retention = Retention(self._ledger, store, self._settings.layout)
        self._retention.start()
        self._memory = Repeating("maskq-memory", _TRIM_MALLOC_EVERY_S, trim_malloc)
        self._memory.start()

    def _make_runner(self, worker: Any, store: ObjectStore) -> None:
        settings = self._settings
        owner = f"{socket.gethostname()}:{os.getpid()}"
        self._presence = Presence(
            self._ledger,
            self._segmenter.info,
            owner,
            plain_http=bool(settings.presigned_allowed_hosts),
            capacity=worker.app.capacity,
            in_hand=lambda: len(self._leases.holding()),
            jobs_per_s=lambda: self._counters.jobs_per_s,
        )
        self._heartbeats = Repeating("maskq-heartbeats", REGISTER_EVERY_S, self._register)
        self._store_watch = Repeating(
            "maskq-store-watch", STORE_AWAY_EVERY_S, lambda: self._note_store_away(store)
        )
        self._store_watch.start()
        self._job_runner = worker.app.job_runner = JobRunner(
            settings,
            ledger=self._ledger,
            store=store,
            decoder=self._decoder,
            segmenter=self._segmenter,
            batcher=self._batcher,
            leases=self._leases,
            owner=owner,
            counters=self._counters,
        )
        self._metrics = ProcessMetrics(
            settings,
            model=self._segmenter.info.name,
            counters=self._counters,
            batcher=self._batcher,
            leases=self._leases,
            breaker=store.breaker,
        )
        self._metrics.start()
        self._traces = trace_export.start("maskq-worker")

    def _watch_consumer(self, worker: Any) -> None:
        self._consumer_watch = ConsumerWatch(
            self._ledger,
            self._segmenter.info.name,
            slots=worker.app.slots,
            leases=self._leases,
            may_claim=lambda: self._job_runner.may_claim,
        )
        self._consumer_watch.start()

    def _check_store(self, store: ObjectStore, loaded: Future[Segmenter]) -> None:
        """Check, while the model loads, that the home bucket is writable and creates objects only once.

        Waits for a store that is unavailable or refuses the credentials; its breaker logs it.
        """
        while True:
            try:
                return store.check_conditional_writes()
            except PermanentError as error:
                raise InvalidRequest(error.message) from error
            except JobError:
                if loaded.done():
                    loaded.result()  # errors of the model are reported first
            time.sleep(_AWAY_PAUSE_S)
            state.maybe_shutdown()

    def _make_ready(self) -> None:
        """In the thread that owns the model."""
        # In this order: on a GPU the test runs the graphs then, and cuDNN keeps the algorithms that it
        # chose first.
        warm_up(self._segmenter)
        run_self_test(self._segmenter)

    def _await_registered(self) -> None:
        """Register the model. Waits for a Redis that is unavailable or loading, not for a full one."""
        while True:
            await_met(
                self._ledger,
                Role.WORKER,
                self._segmenter.info.name,
                _pause,
            )
            try:
                return self._presence.register()
            except QueueFull as error:
                logger.warning("%s; the model is registered later", error)
                return
            except StoreUnavailable as error:
                if error.code is not FailureCode.STORE_UNAVAILABLE:
                    raise
                logger.warning("%s; trying again", error)
                _pause(_AWAY_PAUSE_S)

    def _on_ready(self, **_: Any) -> None:
        if self._health:
            self._touch_health_file()
            self._worker.timer.call_repeatedly(1.0, self._touch_health_file)

    def _note_store_away(self, store: ObjectStore) -> None:
        if store.breaker.home_is_away:
            self._presence.note_store_away()

    def _register(self) -> None:
        """Renew the registration: it expires otherwise, and Redis may have lost its data."""
        if not self._consumer_watch.is_stuck:
            _ignoring_outages(self._presence.register)

    def _touch_health_file(self) -> None:
        """Touch the health file from the main loop, which proves that the loop takes messages."""
        if not self._consumer_watch.is_stuck:
            self._health.touch()

    def stop(self, worker: Any) -> None:
        self._consumer_watch.stop()
        self._job_runner.stop_claiming()
        _ignoring_outages(self._presence.drain)
        self._await_held(self._settings.drain_s)
        if self._leases.holding():
            self._cut_off()
        self._decoder.close()
        self._batcher.close()
        self._watchdog.stop()
        self._retention.stop()
        self._memory.stop()
        self._store_watch.stop()
        self._leases.stop()
        self._sweeper.stop()
        self._metrics.stop()
        self._traces.stop()
        self._segmenter.close()
        self._heartbeats.stop()
        _ignoring_outages(self._presence.leave)
        self._ledger.close()
        self._health.remove()

    def _await_held(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._leases.holding() and time.monotonic() < end:
            time.sleep(0.05)

    def _cut_off(self) -> None:
        """Leave the jobs that did not end within the drain, and end what this process does for them."""
        self._release_rest()
        # Celery waits for their threads, which may wait for a slow URL, or for the model.
        shut_down_all()
        self._batcher.close(drain=False, timeout_s=0)
        self._await_held(_CUT_OFF_S)

    def _release_rest(self) -> None:
        """Release the jobs that did not end within the drain: they run elsewhere at once, uncharged."""
        reason = JobFailure(code=FailureCode.WORKER_LOST, message="its worker was told to stop")
        for held in self._leases.holding():
            held.mark_lost()
            # Its thread may still write objects, and ends with this process.
            self._ledger.run(calls.leave_orphans(held.job_id))
            self._ledger.run(
                calls.release(
                    held.job_id, held.token, reason,
                    charged=False, delay_s=0,
                )
            )  # fmt: skip


def _make_decoder(settings: WorkerSettings, concurrency: int) -> Decoder:
    try:
        return make_decoder(settings, concurrency=concurrency)
    except JobError as error:
        raise InvalidRequest(error.message) from error


def _end_for(device: str, error: Exception) -> None:
    end_process(f"{device} is lost to this process ({str(error).splitlines()[0]})")


def _pause(seconds: float) -> None:
    time.sleep(seconds)
    state.maybe_shutdown()


def _ignoring_outages(work: Any) -> None:
    try:
        work()
    except MaskqError as error:
        logger.warning("%s", error)
