"""HTTP calls to URLs that others choose: public addresses only, and one deadline for a whole call.

`import maskq` does not import this: it needs urllib3 and ssl, which only a process that calls needs.
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
