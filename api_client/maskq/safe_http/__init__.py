"""HTTP calls to URLs that callers choose: public addresses only, one deadline for the whole call.

`import maskq` does not import this package: it needs urllib3 and ssl, which most clients do not use.
"""

from maskq.safe_http.addresses import embedded_ipv4, is_public
from maskq.safe_http.errors import Refused, TooLong, Unreachable
from maskq.safe_http.happy_eyeballs import Address
from maskq.safe_http.request import Answer, get, post, send
from maskq.safe_http.target import Target, check

__all__ = [
    "Address", "Answer", "Refused", "Target", "TooLong", "Unreachable",
    "check", "embedded_ipv4", "get", "is_public", "post", "send",
]  # fmt: skip
