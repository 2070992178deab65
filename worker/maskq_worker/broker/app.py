"""The Celery app and its settings. docs/architecture.md explains each setting."""

from __future__ import annotations

from urllib.parse import quote

from celery import Celery
from kombu import Queue

from maskq.ledger import RedisUrl, keys
from maskq_worker.broker.slots import Slots, threads_for
from maskq_worker.broker.transport import Inbox
from maskq_worker.process.capacity import Capacity
from maskq_worker.settings import WorkerSettings
from maskq_worker.storage.object_store import ObjectStore

_RESULT_EXPIRES_S = 3600  # of raw Celery callers; the job record is authoritative
_VISIBILITY_S = 600
_HEALTH_CHECK_S = 5


class WorkerApp(Celery):
    """A Celery app with what the parts of one worker process share."""

    def __init__(self, settings: WorkerSettings, capacity: Capacity) -> None:
        """Raises InvalidRequest for settings of the object store that are not valid."""
        super().__init__("maskq", set_as_current=False, include=["maskq_worker.broker.tasks"])
        self.settings = settings
        self.capacity = capacity
        self.object_store = connect_store(settings, capacity.concurrency)
        self.slots = Slots(capacity.concurrency, stalled=self.object_store.breaker.stalled)


def make_app(settings: WorkerSettings, model_name: str, capacity: Capacity) -> WorkerApp:
    """An app that consumes the callers' queue and the tickets of one model.

    Raises InvalidRequest for settings of the object store that are not valid.
    """
    # Here, since it imports the tasks, which bind to an app.
    from maskq_worker.broker.bootstep import ModelStep

    url = RedisUrl.of(settings)
    prefix = settings.key_prefix
    app = WorkerApp(settings, capacity)
    callers_queue, tickets = (
        keys.callers_queue().within(prefix),
        keys.queue(model_name).within(prefix),
    )
    app.conf.update(
        broker_url=_url_for_log(url),
        broker_transport="maskq_worker.broker.transport:Transport",
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # the default gives up after 100 and exits
        broker_transport_options={
            "redis_url": url,
            "health_check_interval": _HEALTH_CHECK_S,  # of the connection that waits for messages
            "visibility_timeout": _VISIBILITY_S,
            "priority_steps": [0],
            "queue_order_strategy": "round_robin",
            # Own keys: else the shortest visibility timeout of all apps in a database applies.
            "unacked_key": f"{prefix}:unacked",
            "unacked_index_key": f"{prefix}:unacked_index",
            "unacked_mutex_key": f"{prefix}:unacked_mutex",
            "refused_key": keys.refused().within(prefix),
            "inbox": Inbox(callers_queue, tickets, model_name, app.slots),
        },
        result_expires=_RESULT_EXPIRES_S,
        # Messages are not acknowledged: the ledger resends a message that is lost with its worker. A
        # copy in `unacked` would cost two more round trips per job.
        task_queues=[
            Queue(name, routing_key=name, no_ack=True) for name in (callers_queue, tickets)
        ],
        task_default_queue=callers_queue,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json", "maskq"],  # envelope.py accepts only messages of its own
        task_ignore_result=False,
        worker_prefetch_multiplier=1,
        worker_concurrency=capacity.concurrency,
        worker_pool="maskq_worker.broker.pool:TaskPool",  # threads: forks cannot share a GPU's model
        worker_enable_remote_control=False,  # a broadcast could shut down workers
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
    )
    app.backend_cls = (
        "maskq_worker.broker.results:ResultBackend"  # also overrides CELERY_RESULT_BACKEND
    )
    app.steps["worker"].add(ModelStep)
    return app


def connect_store(settings: WorkerSettings, concurrency: int) -> ObjectStore:
    """The object store that the jobs use. Raises InvalidRequest."""
    return ObjectStore(
        settings.s3_endpoint_url,
        allowed=settings.locations(),
        connections=threads_for(concurrency) + 2,
        concurrency=concurrency,
        client=settings.s3_client,
        addressing=settings.s3_addressing,
        home=settings.layout.home,
    )


def _url_for_log(url: RedisUrl) -> str:
    """What Celery logs. The transport connects with the options of `url` itself."""
    host, port = url.hosts[0] if url.hosts else (url.path, 0)
    return f"redis://{quote(host, safe='')}:{port}/{url.db}"
