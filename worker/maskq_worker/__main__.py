"""`python -m maskq_worker`: one worker process, one model, one device. `maskq worker` starts these."""

from __future__ import annotations

import logging
import os
import sys
import warnings

from maskq.errors import MaskqError
from maskq.extras import require
from maskq.inert import log_to_stderr, print_error
from maskq.process import EX_CONFIG
from maskq_worker.process.capacity import capacity_of
from maskq_worker.process.cpu import run_as_batch
from maskq_worker.settings import WorkerSettings


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code."""
    try:
        require("worker", "a worker")
        settings = WorkerSettings.load()
    except MaskqError as error:
        print_error(f"maskq worker: {error}")
        return EX_CONFIG
    _set_up_logging(settings)

    from maskq_worker.broker.app import make_app
    from maskq_worker.model import goes_to_gpu
    from maskq_worker.model.checkpoint.folder import served_name

    try:
        cuda = goes_to_gpu(settings)
        name = served_name(settings.model or "", settings.model_name)
        app = make_app(settings, name, capacity_of(settings, cuda=cuda))
    except MaskqError as error:
        print_error(f"maskq worker: {error}")
        return EX_CONFIG
    if not cuda:
        run_as_batch()
    worker = app.Worker(
        hostname=node_name(),
        loglevel=settings.log_level,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _set_up_logging(settings: WorkerSettings) -> None:
    # Our format shows none of these, and collecting them doubles the cost of a job's line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # turns off the search for the caller, as Python's documentation says
    log_to_stderr(settings.log_level, settings.log_format)
    # The worker itself writes one line for each job; Celery's two lines add nothing.
    for name in ("celery.app.trace", "celery.worker.strategy"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("celery.backends.redis").addFilter(_without_traceback)
    from celery.platforms import SecurityWarning

    # It warns of pickle, which this worker does not accept.
    warnings.filterwarnings("ignore", category=SecurityWarning)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Log one line for a chord of which a task failed: that is no fault of this worker."""
    from celery.exceptions import ChordError

    if record.exc_info and isinstance(record.exc_info[1], ChordError):
        record.exc_info = None
    return True


def node_name() -> str:
    """For Celery's logs and events; only the command `celery worker` expands %h."""
    from celery.utils.nodenames import gethostname, nodename

    return str(nodename(f"maskq-{os.getpid()}", gethostname()))


if __name__ == "__main__":
    sys.exit(main())
