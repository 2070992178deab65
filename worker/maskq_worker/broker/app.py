"""The Celery app: settings and nothing else. docs/architecture.md says why each is as it is."""

from __future__ import annotations

from urllib.parse import quote

from celery import Celery
from kombu import Queue

from maskq.ledger import RedisUrl, keys
from maskq_worker.broker.slots import Slots
from maskq_worker.broker.transport import Inbox
from maskq_worker.settings import WorkerSettings

_RESULT_EXPIRES_S = 3600  # only raw Celery callers have results here; the record is the truth
_VISIBILITY_S = 600
_HEALTH_CHECK_S = 5


def make_app(settings: WorkerSettings, model_name: str, *, concurrency: int) -> Celery:
    """An app that consumes the intake and the tickets of one model."""
    from maskq_worker.broker.bootstep import ModelStep  # it imports the tasks, which bind to an app

    url = RedisUrl.of(settings)
    prefix = settings.key_prefix
    app = Celery("maskq", set_as_current=False, include=["maskq_worker.broker.tasks"])
    slots = app.slots = Slots(concurrency)
    names = [keys.intake().within(prefix), keys.queue(model_name).within(prefix)]
    app.conf.update(
        broker_url=_shown(url),
        broker_transport="maskq_worker.broker.transport:Transport",
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # the default gives up after 100 and exits
        broker_transport_options={
            "redis_url": url,
            "health_check_interval": _HEALTH_CHECK_S,  # of the connection that waits for messages
            "visibility_timeout": _VISIBILITY_S,
            "priority_steps": [0],
            "queue_order_strategy": "round_robin",
            # Own keys: the shortest visibility timeout among all apps of a database wins otherwise.
            "unacked_key": f"{prefix}:unacked",
            "unacked_index_key": f"{prefix}:unacked_index",
            "unacked_mutex_key": f"{prefix}:unacked_mutex",
            "refused_key": keys.refused().within(prefix),
            "inbox": Inbox(names[0], names[1], model_name, slots),
        },
        result_expires=_RESULT_EXPIRES_S,
        # Nothing is acknowledged: a message that dies with its worker is sent again by the ledger, and
        # keeping a copy in `unacked` would cost two round trips a job to protect it a second time.
        task_queues=[Queue(name, routing_key=name, no_ack=True) for name in names],
        task_default_queue=keys.intake().within(prefix),
        task_serializer="json",
        result_serializer="json",
        accept_content=["json", "maskq"],  # envelope.py lets only its own through
        task_ignore_result=False,
        worker_prefetch_multiplier=1,
        worker_concurrency=concurrency,
        worker_pool="maskq_worker.broker.pool:TaskPool",  # threads: forks cannot share a GPU's model
        worker_enable_remote_control=False,  # a broadcast could shut workers down
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
    )
    app.backend_cls = "maskq_worker.broker.results:ResultBackend"  # over CELERY_RESULT_BACKEND, too
    app.steps["worker"].add(ModelStep)
    return app


def _shown(url: RedisUrl) -> str:
    """For Celery's log; broker.py connects by what `url` says."""
    host, port = url.hosts[0] if url.hosts else (url.path, 0)
    return f"redis://{quote(host, safe='')}:{port}/{url.db}"
