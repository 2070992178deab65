"""What a worker process is called, and what it says."""

from __future__ import annotations

import os
import socket

from maskq_worker.__main__ import node_name


def test_the_name_of_the_node_is_written_out() -> None:
    assert node_name() == f"maskq-{os.getpid()}@{socket.gethostname()}"
