"""`python -m maskq_standalone.servers.s3_process`: ministack's S3 behind an authorizer.

By itself the emulator accepts any secret for its configured key, accepts the key `test` as well, and
lets everybody on the machine, also a web page in a browser, empty it by POST /_ministack/reset. The
authorizer accepts only requests that are signed with the configured key and secret, for S3 or for the
queues that get its notifications (SQS). Form uploads pass to the emulator, which checks the signature
of their policy itself.

The emulator also answers 200 to a PUT that did not fit on the disk, and keeps its bytes in memory until
it ends. So the authorizer refuses writes before the disk is full.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, quote

import ministack.app
from ministack.core import sigv4

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]

ALGORITHM = "AWS4-HMAC-SHA256"
NO_SPACE = "ServiceUnavailable"
RESERVE_BYTES = 16 * 2**20
QUEUE_BODY_BYTES = 2**20  # SQS takes messages of at most 256 KiB
STORE, QUEUES = "s3", "sqs"
ONLY_V4 = ("AccessDenied", f"Only {ALGORITHM} signatures are accepted")
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"  # needs the body to be checked: not offered


class Authorizer:
    """An ASGI application that answers with S3's errors before the emulator sees a request."""

    def __init__(
        self, app: App, access_key_id: str, secret_access_key: str, data_directory: str
    ) -> None:
        self._app = app
        self._data = data_directory
        self._key = access_key_id
        self._secret = secret_access_key

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            body = None
            if _signed_service(scope) == QUEUES:  # their signature covers the body itself
                body = await _whole_body(receive)
            refusal = self._refusal(scope, body) or self._space_refusal(scope)
            if refusal is None:
                await self._app(scope, receive if body is None else _replay(body), send)
            else:
                await _refuse(send, *refusal)
        # S3 uses no WebSocket: without an answer the server closes the connection.

    def _refusal(self, scope: Scope, body: bytes | None) -> tuple[str, str] | None:
        """S3's error code and the message; None: the request may pass."""
        headers = _joined(scope["headers"])
        query = parse_qs(scope["query_string"].decode("utf-8", "replace"), keep_blank_values=True)
        if "authorization" in headers:
            return self._header_refusal(scope, headers, query, body)
        if "X-Amz-Signature" in query:
            return self._query_refusal(scope, headers, query)
        if scope["method"] == "OPTIONS" or _is_form_upload(scope, headers):
            return None
        return "AccessDenied", "Access Denied"

    def _header_refusal(
        self,
        scope: Scope,
        headers: dict[str, str],
        query: dict[str, list[str]],
        body: bytes | None,
    ) -> tuple[str, str] | None:
        signature = sigv4.parse_header_signature(headers)
        if not headers["authorization"].startswith(ALGORITHM) or isinstance(signature, tuple):
            return ONLY_V4
        body_hash = headers.get("x-amz-content-sha256", "")
        if body is None and (not body_hash or body_hash == SIGNED_CHUNKS):
            return "InvalidRequest", "x-amz-content-sha256 is missing, or names signed chunks"
        return (
            self._key_refusal(signature)
            or sigv4.request_time_failure(signature)
            or sigv4.header_signature_failure(
                signature,
                self._secret,
                scope["method"],
                _raw_path(scope),
                query,
                headers,
                body or b"",
            )
        )

    def _query_refusal(
        self, scope: Scope, headers: dict[str, str], query: dict[str, list[str]]
    ) -> tuple[str, str] | None:
        """Of a presigned URL. The emulator checks when it expires."""
        signature = sigv4.parse_query_signature(query)
        if query.get("X-Amz-Algorithm") != [ALGORITHM] or isinstance(signature, tuple):
            return ONLY_V4
        return self._key_refusal(signature) or sigv4.header_signature_failure(
            signature,
            self._secret,
            scope["method"],
            _raw_path(scope),
            query,
            headers,
            b"",
            presigned=True,
        )

    def _key_refusal(self, signature: sigv4.HeaderSignature) -> tuple[str, str] | None:
        if signature.access_key_id != self._key or signature.service not in (STORE, QUEUES):
            return "InvalidAccessKeyId", "The access key is not the one of this server"
        return None

    def _space_refusal(self, scope: Scope) -> tuple[str, str] | None:
        """Of a write that would leave less than RESERVE_BYTES free on the disk."""
        if scope["method"] not in ("PUT", "POST"):
            return None
        length = _joined(scope["headers"]).get("content-length", "0")
        needed = RESERVE_BYTES + (int(length) if length.isdigit() else 0)
        if shutil.disk_usage(self._data).free >= needed:
            return None
        return NO_SPACE, f"No space left on the disk that holds {self._data}"


def _signed_service(scope: Scope) -> str:
    """The service in the scope of the header's signature; '' if there is none."""
    signature = sigv4.parse_header_signature(_joined(scope["headers"]))
    return "" if signature is None or isinstance(signature, tuple) else signature.service


async def _whole_body(receive: Any) -> bytes:
    """At most QUEUE_BODY_BYTES of it; the signature of a longer body does not match."""
    body = b""
    while len(body) < QUEUE_BODY_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body


def _replay(body: bytes) -> Callable[[], Awaitable[dict[str, Any]]]:
    """A `receive` that returns a body read before, once; then it waits, as for a connected client."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop()
        await asyncio.Event().wait()
        raise AssertionError

    return receive


def _joined(raw_headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw_headers:
        key, text = name.decode("latin-1").lower(), sigv4.decode_header_value(value)
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _is_form_upload(scope: Scope, headers: dict[str, str]) -> bool:
    """A presigned POST: its signed policy is in the body, and nothing in the URL but the bucket."""
    return (
        scope["method"] == "POST"
        and headers.get("content-type", "").startswith("multipart/form-data")
        and not scope["query_string"]
        and "/" not in scope["path"].strip("/")
    )


def _raw_path(scope: Scope) -> str:
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    return str(raw.decode("latin-1"))


async def _refuse(send: Send, code: str, message: str) -> None:
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
    headers = [(b"content-type", b"application/xml")]
    status = HTTPStatus.SERVICE_UNAVAILABLE if code == NO_SPACE else HTTPStatus.FORBIDDEN
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def main() -> None:
    """Serve until SIGTERM; configured by the emulator's own environment variables."""
    sys.argv = ["ministack"]
    key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    # ministack's main serves whatever its module calls `app`.
    ministack.app.app = Authorizer(ministack.app.app, key, secret, os.environ["S3_DATA_DIR"])
    ministack.app.main()


if __name__ == "__main__":
    main()
