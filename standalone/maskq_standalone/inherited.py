"""What the processes of a stack take over from the environment that the stack was started in."""

from __future__ import annotations

import os

from maskq import environment
from maskq.settings import known
from maskq_standalone.servers import redis

# The stack sets these itself.
_OWN = (
    "MASKQ_REDIS_URL", "MASKQ_S3_ENDPOINT_URL", "MASKQ_S3_BUCKET", "MASKQ_HEALTH_FILE",
    "MASKQ_GATEWAY_URL", "MASKQ_API_KEY",
)  # fmt: skip
_PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def settings() -> dict[str, str]:
    """The MASKQ_ variables of this process. Variables that name a file are replaced by its content."""
    return environment.resolved(known(), leave_out=(*_OWN, redis.SETTING))


def no_proxy() -> dict[str, str]:
    """Variables that keep clients from asking a proxy for 127.0.0.1; {} if no proxy is set."""
    if not any(os.environ.get(name) for name in _PROXIES):
        return {}
    hosts = [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1"]
    value = ",".join(host for host in hosts if host)
    return {"NO_PROXY": value, "no_proxy": value}
