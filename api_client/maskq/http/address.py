"""The URL of a gateway, checked once."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from maskq.errors import InvalidRequest

_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f-\xa0\\]")
ALLOWED_HOSTS = "MASKQ_GATEWAY_PLAIN_HTTP_HOSTS"


def is_http(text: str) -> bool:
    """Whether a text is meant as the URL of a gateway."""
    return text.strip().lower().startswith(("https://", "http://"))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name or address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Scheme, host, port and root path of a gateway. It holds no secret."""

    url: str  # without a slash at its end
    plain_http_hosts: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, url: str, plain_http_hosts: Collection[str] = ()) -> GatewayAddress:
        """Raises InvalidRequest. `plain_http_hosts`: that are called without TLS, beside loopback."""
        url = url.strip()
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:  # the error's text may contain a part of a password
            raise InvalidRequest("the gateway's URL is not a valid URL") from None
        if parts.username is not None or parts.password is not None:
            raise InvalidRequest(
                "the gateway's URL holds a user name or password; give the API key as api_key, or in "
                "MASKQ_API_KEY"
            )
        if not host or _NOT_IN_URLS.search(url) or parts.scheme not in ("https", "http"):
            raise InvalidRequest(
                "the gateway's URL is not valid; it looks like https://maskq.example"
            )
        if parts.query or parts.fragment:
            raise InvalidRequest("the gateway's URL has a query or fragment; leave it out")
        made = cls(
            f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}",
            frozenset(name.lower() for name in plain_http_hosts),
        )
        if not made.allows(parts.scheme, host):
            raise InvalidRequest(
                f"the gateway's URL is http, which would send the API key to {host}"
                f"{f':{port}' if port else ''} in clear text; use https, or add the host to "
                f"{ALLOWED_HOSTS} if the network between is trusted"
            )
        return made

    def allows(self, scheme: str, host: str) -> bool:
        """Whether a host may be called so: by https, or by http on loopback and listed hosts."""
        if scheme == "https":
            return True
        return scheme == "http" and (is_loopback(host) or host.lower() in self.plain_http_hosts)

    def allows_url(self, url: str) -> bool:
        """Whether a URL that the gateway redirects to may be fetched."""
        try:
            parts = urlsplit(url)
            return bool(parts.hostname) and self.allows(parts.scheme, parts.hostname or "")
        except ValueError:
            return False
