"""What a worker process is called, and what it says."""

from __future__ import annotations

import os
import socket

from maskq_worker.__main__ import node_name
from maskq_worker.broker.app import make_app
from maskq_worker.process.capacity import Capacity
from maskq_worker.settings import WorkerSettings


def test_the_name_of_the_node_is_written_out() -> None:
    assert node_name() == f"maskq-{os.getpid()}@{socket.gethostname()}"


def test_nobody_who_reaches_the_broker_commands_a_worker() -> None:
    app = make_app(WorkerSettings.load(), "demo", Capacity(1, 1, 1))
    assert not app.conf.worker_enable_remote_control  # a broadcast could shut it down
    assert set(app.conf.accept_content) == {"json", "maskq"}
