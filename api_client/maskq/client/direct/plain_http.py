"""Refusing http URLs that no worker would call, before a job is submitted for them."""

from __future__ import annotations

from collections.abc import Iterable

from maskq.client.operations.flow import Flow
from maskq.contract.locations import redact
from maskq.errors import InvalidRequest
from maskq.ledger.calls import Limits, models


def refuse(urls: Iterable[object], model: str | None, limits: Limits) -> Flow[None]:
    """Raise InvalidRequest for an http URL if the live workers call https only.

    model: that the jobs ask for; None: any. Workers whose setting allows some hosts decide themselves.
    """
    plain = [url for url in urls if is_plain(url)]
    if plain and (yield from only_https(model, limits)):
        raise refusal(str(plain[0]))


def is_plain(url: object) -> bool:
    """Whether it is a URL without TLS."""
    return isinstance(url, str) and url.startswith("http://")


def only_https(model: str | None, limits: Limits) -> Flow[bool]:
    """Whether there are live workers, and none of them calls http URLs of any host."""
    known: models.Known = yield models.known(limits)
    workers = [one for each in known.each if model in (None, each.name) for one in each.workers]
    return bool(workers) and all(one.plain_http is False for one in workers)


def refusal(url: str) -> InvalidRequest:
    return InvalidRequest(
        f"{redact(url)} is not called: the workers call https URLs only; they call http on hosts in "
        f"their MASKQ_PRESIGNED_ALLOWED_HOSTS"
    )
