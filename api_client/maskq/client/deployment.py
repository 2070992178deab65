"""What a client's operations ask of a deployment, whether they reach it directly or over HTTP.

Operations that no deployment offers over HTTP (API keys, retiring models, deleting a tenant) are not
here: they yield calls to the ledger, which only the direct drivers perform.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from maskq.client.bulk import Bulk, SubmitOptions
from maskq.client.events import EventFilter
from maskq.client.image_source import ImageSource
from maskq.client.operations.flow import Flow
from maskq.contract import Event, JobRecord, Output
from maskq.contract.deployment.overview import Overview
from maskq.contract.deployment.workers import Workers
from maskq.contract.options import Options
from maskq.contract.queueing.waiting import Waiting
from maskq.contract.tracing import TraceContext
from maskq.contract.webhooks import Delivery, DeliveryState
from maskq.ledger.calls import BatchProgress, Filter, Page
from maskq.ledger.calls.models import Known


class EventReader(Protocol):
    """Reads events in their order."""

    def open(self) -> Flow[None]:
        """Find the position to start at. Raises EventsLost."""

    def read(self, left_s: float | None) -> Flow[Sequence[Event]]:
        """The next events; waits at most `left_s` seconds for the first (None: as long as it likes)."""

    def confirm(self, event: Event) -> Flow[None]:
        """The caller has the event: continue after it."""

    def close(self) -> Flow[None]:
        """Stop reading."""


class Deployment(ABC):
    """Every method is a flow. An id may be an alias. All raise StoreUnavailable."""

    @abstractmethod
    def submit(
        self,
        image: ImageSource,
        options: Options,
        *,
        idempotency_key: str | None,
        durable: bool,
        queue_full_timeout: float | None,
        trace: TraceContext | None,
    ) -> Flow[str]:
        """Submit one image; returns the job's id. Raises what `Client.submit` raises.

        trace: of the job.
        """

    @abstractmethod
    def bulk(
        self, job: Callable[[str], Any], submit_options: SubmitOptions, options: Options
    ) -> Bulk[Any]:
        """Submits any number of images. `job`: makes the handle on a job from its id."""

    @abstractmethod
    def retry(self, job_id: str, trace: TraceContext | None) -> Flow[str]:
        """Submit a job again; returns the new job's id. Raises what `Client.retry` raises.

        trace: of the new job.
        """

    @abstractmethod
    def records(self, job_ids: Sequence[str]) -> Flow[Mapping[str, JobRecord | None]]:
        """The jobs' records; None for an unknown job."""

    @abstractmethod
    def list(self, wanted: Filter, limit: int, cursor: str) -> Flow[Page]:
        """One page of records."""

    @abstractmethod
    def record_when_ended(self, job_id: str, timeout_s: float | None) -> Flow[JobRecord]:
        """The record once the job has ended, or after `timeout_s`. Raises JobNotFound."""

    @abstractmethod
    def why(self, job_id: str) -> Flow[Waiting]:
        """What a job waits for. Raises JobNotFound."""

    @abstractmethod
    def cancel(self, job_id: str) -> Flow[bool]:
        """Cancel a job; returns whether it is canceled now. Raises JobNotFound."""

    @abstractmethod
    def delete(self, job_id: str) -> Flow[None]:
        """Delete a job. Raises JobNotFound."""

    @abstractmethod
    def batch_progress(self, batch_id: str) -> Flow[BatchProgress | None]:
        """How far a batch is; None if it is unknown."""

    @abstractmethod
    def batch_when_ended(
        self, batch_id: str, timeout_s: float | None
    ) -> Flow[BatchProgress | None]:
        """Its progress once all its jobs have ended, or after `timeout_s`; None if it is unknown."""

    @abstractmethod
    def ended_in_batch(
        self, batch_id: str, seen: int, timeout_s: float | None
    ) -> Flow[Mapping[str, JobRecord | None] | None]:
        """Records of the jobs that ended after the first `seen` ones, in order; None: deleted since.

        Waits at most `timeout_s` for the first; at most a thousand. None if the batch is unknown.
        """

    @abstractmethod
    def cancel_batch(self, batch_id: str, job_ids: Sequence[str]) -> Flow[int]:
        """Cancel these jobs of a batch; returns how many of them are canceled now."""

    @abstractmethod
    def give_up_batch(self, batch_id: str, job_ids: Sequence[str]) -> Flow[None]:
        """Cancel every job of a batch whose submission failed. `job_ids`: those known to exist."""

    @abstractmethod
    def reader(
        self, wanted: EventFilter, since: str | None, group: str | None, take_over_s: float
    ) -> EventReader:
        """A reader of events, as a member of `group` if it is given; it may yield unwanted ones."""

    @abstractmethod
    def delete_event_group(self, group: str) -> Flow[bool]:
        """Delete a group of event readers; returns whether it existed."""

    @abstractmethod
    def deliveries(
        self, subject: str, state: DeliveryState | None, limit: int
    ) -> Flow[Sequence[Delivery]]:
        """Webhook deliveries, newest first."""

    @abstractmethod
    def redeliver(self, delivery_id: str) -> Flow[bool]:
        """Deliver a webhook again; returns whether it is known."""

    @abstractmethod
    def models(self) -> Flow[Known]:
        """The models, and the one of requests that name none."""

    @abstractmethod
    def workers(self) -> Flow[Workers]:
        """The live workers."""

    @abstractmethod
    def overview(self) -> Flow[Overview]:
        """Queues, totals, stores and limits."""

    @abstractmethod
    def output(
        self, record: JobRecord, output: Output, uri: str, class_id: int | None
    ) -> Flow[bytes]:
        """The bytes of an output, which lies at `uri`. Raises InvalidRequest if it is not the job's.

        class_id: of an output that is one file per class, whose file to read.
        """
