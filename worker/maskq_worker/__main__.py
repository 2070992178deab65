"""`python -m maskq_worker`: one worker process, one model, one device. `maskq worker` starts these."""

from __future__ import annotations

import argparse
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
from maskq_worker.process.parent_death import end_with
from maskq_worker.settings import WorkerSettings


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m maskq_worker", description=__doc__)
    arguments.add_argument("--parent", type=int, help="the process to end with")
    if parent := arguments.parse_args().parent:
        end_with(parent)
    try:
        require("worker", "a worker")
        settings = WorkerSettings.load()
    except MaskqError as error:
        print_error(f"maskq worker: {error}")
        return EX_CONFIG
    # What our format does not show need not be found out: a job's line then costs half.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # by which callers are found; Python's own documentation says so
    log_to_stderr(settings.log_level)
    # One line a job is ours to write; Celery's own two say nothing more.
    for name in ("celery.app.trace", "celery.worker.strategy"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("celery.backends.redis").addFilter(_without_traceback)
    from celery.platforms import SecurityWarning

    # It warns of pickle, which is not accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)

    from maskq_worker.broker.app import make_app
    from maskq_worker.model import goes_to_gpu
    from maskq_worker.model.checkpoint.folder import served_name

    try:
        cuda = goes_to_gpu(settings)
        wanted = capacity_of(settings, cuda=cuda)
        name = served_name(settings.model or "", settings.model_name)
        app = make_app(settings, name, concurrency=wanted.concurrency)
    except MaskqError as error:
        print_error(f"maskq worker: {error}")
        return EX_CONFIG
    if not cuda:
        run_as_batch()
    app.settings, app.capacity = settings, wanted
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


def _without_traceback(record: logging.LogRecord) -> bool:
    """A chord that one of its tasks fails is no fault of this worker's: its line says it all."""
    from celery.exceptions import ChordError

    if record.exc_info and isinstance(record.exc_info[1], ChordError):
        record.exc_info = None
    return True


def node_name() -> str:
    """In Celery's logs and events; `celery worker` expands %h on its command line only."""
    from celery.utils.nodenames import gethostname, nodename

    return str(nodename(f"maskq-{os.getpid()}", gethostname()))


if __name__ == "__main__":
    sys.exit(main())
