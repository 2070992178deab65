"""Reading outputs: from the gateway, or from the store that it redirects to."""

from __future__ import annotations

from typing import Final

from maskq.client.http.asking import Gateway
from maskq.client.operations.flow import Flow
from maskq.contract import FailureCode
from maskq.errors import StoreUnavailable
from maskq.http.problems import NoSuchSubject, error
from maskq.http.request import Answer, Request

_REDIRECTS: Final = (302, 303, 307)
_READ_S: Final = 120.0  # for a whole output


class Outputs:
    """The files of results."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def read(self, path: str) -> Flow[bytes]:
        """The bytes of an output. Raises StoreRefused if it is not there any more."""
        request = Request(method="GET", path=path, timeout_s=_READ_S)
        try:
            answer = yield from self._gateway.ask(request, expected=_REDIRECTS)
            if answer.status in _REDIRECTS:
                answer = yield from self._redirected(path, answer.headers.get("location", ""))
        except NoSuchSubject as missing:
            raise error(FailureCode.NOT_FOUND, str(missing)) from None
        return answer.body

    def _redirected(self, path: str, url: str) -> Flow[Answer]:
        """The output from the store, without the API key; from the gateway if that does not work."""
        if self._gateway.address.allows_url(url):
            try:
                answer: Answer = yield Request(method="GET", path=url, timeout_s=_READ_S)
                if answer.status == 200:
                    return answer
            except StoreUnavailable:
                pass  # the store may be reachable for the gateway only
        streamed = Request(
            method="GET", path=path, query=(("delivery", "stream"),), timeout_s=_READ_S
        )
        return (yield from self._gateway.ask(streamed))
