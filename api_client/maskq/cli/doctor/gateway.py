"""The gateway: does it answer, is it ready, does it accept the API key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from maskq import environment
from maskq.cli.doctor.check import Check, Finding, Role, Target, ok, trouble, unknown
from maskq.client.client import Client
from maskq.errors import InvalidRequest, MaskqError

_URL: Final = "MASKQ_GATEWAY_URL"


class GatewayCheck(Check):
    area = "gateway"
    roles = frozenset(Role)

    def run(self, target: Target) -> Iterator[Finding]:
        try:
            url = environment.value(_URL)
        except InvalidRequest as error:
            yield trouble("reachable", str(error), f"correct {_URL}")
            return
        if url is None:
            if target.role is Role.CLIENT:
                yield trouble("reachable", f"{_URL} is not set", f"set {_URL} and MASKQ_API_KEY")
            return
        yield from _asked()


def _asked() -> Iterator[Finding]:
    try:
        with Client.from_env(transport="http") as client:
            known = client.models()
    except InvalidRequest as error:
        yield trouble("reachable", str(error), f"correct {_URL} or MASKQ_API_KEY")
    except MaskqError as error:
        yield trouble(
            "reachable", str(error), f"start `maskq gateway`, or correct {_URL} and MASKQ_API_KEY"
        )
        yield unknown("API key", "not checked")
    else:
        yield ok("reachable", f"answers the API key; {len(known)} models")
