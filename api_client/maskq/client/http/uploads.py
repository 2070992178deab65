"""Images that are larger than the gateway takes: they go to the store by a presigned URL."""

from __future__ import annotations

from typing import Any, Final

from maskq.client.http.asking import Gateway
from maskq.client.operations.flow import Flow
from maskq.contract import FailureCode
from maskq.errors import InvalidRequest, StoreUnavailable
from maskq.http.request import Answer, Form, Request

_ALWAYS_TAKEN: Final = 2**20  # bytes that are sent without a look at the limits
_PUT_S: Final = 600.0


class Uploads:
    """Knows the gateway's limits once it has asked for them."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._limits: tuple[int, int] | None = None

    def needs_one(self, form: Form) -> Flow[bool]:
        """Whether an image is too large for a form. Raises InvalidRequest if it is too large at all."""
        size = len(form.image)
        if size <= _ALWAYS_TAKEN:
            return False
        if self._limits is None:
            answer = yield from self._gateway.ask(Request(method="GET", path="/v1/limits"))
            self._limits = self._gateway.parsed(answer, _limits)
        in_form, presigned = self._limits
        if size > max(in_form, presigned):
            raise _too_large(size, max(in_form, presigned))
        return size > in_form

    def begin(self, form: Form) -> Flow[str]:
        """Put an image into the store; returns the upload's id. Raises StoreUnavailable."""
        wanted: dict[str, Any] = {"bytes": len(form.image)}
        if "tenant" in form.fields:
            wanted["tenant"] = form.fields["tenant"]
        answer = yield from self._gateway.ask(
            Request(method="POST", path="/v1/uploads", document=wanted)
        )
        upload_id, url, headers = self._gateway.parsed(answer, _upload)
        if not self._gateway.address.allows_url(url):
            raise StoreUnavailable(
                f"the image has {len(form.image)} bytes and must be put into the store by plain http, "
                f"which this client does not do; set MASKQ_S3_PUBLIC_ENDPOINT_URL on the gateway to an "
                f"https URL"
            )
        put: Answer = yield Request(
            method="PUT", path=url, headers=headers, content=form.image, timeout_s=_PUT_S
        )
        if put.status >= 300:
            raise StoreUnavailable(f"the store refused the image with status {put.status}")
        return upload_id


def _too_large(size: int, most: int) -> InvalidRequest:
    made = InvalidRequest(
        f"the image has {size} bytes, and the gateway takes {most}; put it into S3 and name it by "
        f"s3://bucket/key"
    )
    made.code = FailureCode.IMAGE_TOO_LARGE
    return made


def _limits(document: Any) -> tuple[int, int]:
    return int(document["max_upload_bytes"]), int(document.get("max_presigned_bytes", 0))


def _upload(document: Any) -> tuple[str, str, dict[str, str]]:
    if document["method"] != "PUT":
        raise ValueError("not a PUT")
    return str(document["upload_id"]), str(document["url"]), dict(document["headers"])
