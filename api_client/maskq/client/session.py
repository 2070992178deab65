"""What a client shares with its jobs, batches and results."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from maskq.client.deployment import Deployment
from maskq.errors import InvalidRequest

# Attributes of a session that reaches Redis and S3 itself. Other sessions refuse them.
DIRECT_ATTRIBUTES: Final = frozenset(
    ("access", "ledger", "objects", "layout", "limits", "settings", "key_prefix", "run")
)


class Session:
    """A deployment, and the driver that runs operations on it."""

    driver: Any
    deployment: Deployment
    access: Any  # to Redis and S3; over HTTP it raises InvalidRequest

    def __reduce__(self) -> NoReturn:
        raise InvalidRequest(
            "jobs, batches and results cannot be pickled, because they hold connections: send the "
            "job's id and call client.get(job_id) on the other side; a Client can be pickled"
        )
