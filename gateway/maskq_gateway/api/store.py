"""The object store as the API's routes use it: links for callers, and objects read for them."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from starlette.concurrency import run_in_threadpool

from maskq import s3
from maskq.contract.failures import FailureCode
from maskq.contract.locations import S3Uri
from maskq_gateway.settings import GatewaySettings


class Head(NamedTuple):
    """What the store says about an object without sending it."""

    size: int  # bytes
    etag: str


class Store:
    """Connects at the first use. Raises StoreUnavailable and StoreRefused, as the client does."""

    def __init__(self, settings: GatewaySettings) -> None:
        connect = partial(s3.connect, addressing=settings.s3_addressing)
        own, public = settings.s3_endpoint_url, settings.s3_public_endpoint_url
        self._store = s3.Connection(partial(connect, own))
        self._public = s3.Connection(partial(connect, public or own))

    async def get_link(self, place: S3Uri, lasts_s: int) -> str:
        """A URL by which callers read the object."""
        return await run_in_threadpool(self._link, "get_object", place, lasts_s)

    async def put_link(self, place: S3Uri, lasts_s: int, size: int) -> str:
        """A URL by which callers write the object, with exactly `size` bytes."""
        link = partial(self._link, "put_object", place, lasts_s, ContentLength=size)
        return await run_in_threadpool(link)

    async def head(self, place: S3Uri) -> Head | None:
        """None if there is no such object."""

        def asked(client: Any) -> Any:
            with s3.typed_errors(place):
                return client.head_object(Bucket=place.bucket, Key=place.key)

        found = await run_in_threadpool(self._run, asked)
        return Head(found["ContentLength"], found["ETag"]) if found else None

    async def open(self, place: S3Uri) -> Any:
        """The answer to GetObject, whose body is not read yet; None if there is no such object."""

        def opened(client: Any) -> Any:
            with s3.typed_errors(place):
                return client.get_object(Bucket=place.bucket, Key=place.key)

        return await run_in_threadpool(self._run, opened)

    def close(self) -> None:
        self._store.close()
        self._public.close()

    def _link(self, action: str, place: S3Uri, lasts_s: int, **more: Any) -> str:
        params = {"Bucket": place.bucket, "Key": place.key, **more}
        url: str = self._public.client.generate_presigned_url(
            action, Params=params, ExpiresIn=lasts_s
        )
        return url

    def _run(self, work: Any) -> Any:
        try:
            return self._store.run(work)
        except s3.StoreError as error:
            if error.code is FailureCode.NOT_FOUND:
                return None
            raise s3.for_callers(error) from error
