"""The object store: credentials, bucket, rights below the own prefix, conditional writes, clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

from maskq import s3
from maskq.cli.doctor.bucket_rules import bucket_rules
from maskq.cli.doctor.check import (
    REACHES_STORE,
    Check,
    Finding,
    Role,
    Target,
    ok,
    trouble,
    unknown,
    warning,
)
from maskq.contract.ids import new_id
from maskq.contract.locations import S3Uri
from maskq.contract.storage_layout import StorageLayout
from maskq.errors import InvalidRequest
from maskq.s3.errors import Meaning

_BODY: Final = b"written by maskq doctor; may be deleted"
_SKEW_S: Final = 30.0
_REFUSED_SKEW_S: Final = 900.0  # S3 refuses requests beyond it
_TIMEOUT_S: Final = 10.0
_GRANT: Final = "give the credentials the policy of their role (deploy/s3, docs/least-privilege.md)"
_KEYS: Final = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role, that the store knows"


class StoreCheck(Check):
    area = "object store"
    roles = REACHES_STORE

    def run(self, target: Target) -> Iterator[Finding]:
        settings = target.settings
        try:
            client = s3.connect(
                settings.s3_endpoint_url,
                addressing=settings.s3_addressing,
                connections=2,
                read_timeout_s=_TIMEOUT_S,
                attempts=1,
            )
        except InvalidRequest as error:
            yield trouble(
                "reachable", str(error), "correct MASKQ_S3_ENDPOINT_URL or the AWS variables"
            )
            return
        home = S3Uri(settings.s3_bucket, settings.output_prefix)
        with closing(client):
            yield from _Visit(client, home, target.role).findings()


@dataclass(slots=True)
class _Visit:
    """One look at a store. Objects that it writes are removed."""

    client: Any
    home: S3Uri
    role: Role
    _offset_s: float | None = field(default=None, init=False)

    def findings(self) -> Iterator[Finding]:
        reached, *more = self._reached()
        yield reached
        yield from more
        yield _clock(self._offset_s)
        if more:
            return
        yield from self._rights()
        yield from bucket_rules(self.client, self.home)

    def _reached(self) -> list[Finding]:
        """With further findings if the store cannot be used at all."""
        rest = unknown("rights", "reading, writing, deleting and conditional writes: not checked")
        try:
            self._ask(
                self.home,
                lambda c: c.list_objects_v2(
                    Bucket=self.home.bucket, Prefix=f"{self.home.key}/", MaxKeys=1
                ),
            )
        except s3.StoreError as error:
            return [trouble("reachable", str(error), _advice(error)), rest]
        return [ok("reachable", f"lists {self.home}")]

    def _rights(self) -> Iterator[Finding]:
        place = StorageLayout(self.home).job(new_id()).upload
        try:
            self._put(place)
        except s3.StoreError as error:
            if error.s3_code == "NotImplemented":
                yield _no_conditions(str(error))
            else:
                yield trouble("writing", str(error), _advice(error))
            yield unknown("reading, deleting", "not checked: nothing could be written")
            return
        yield ok("writing", f"below {self.home}")
        yield self._reading(place)
        yield self._condition(place)
        yield self._deleting(place)

    def _put(self, place: S3Uri) -> None:
        self._ask(
            place,
            lambda c: c.put_object(Bucket=place.bucket, Key=place.key, Body=_BODY, IfNoneMatch="*"),
        )

    def _reading(self, place: S3Uri) -> Finding:
        try:
            answer = self._ask(place, lambda c: c.get_object(Bucket=place.bucket, Key=place.key))
        except s3.StoreError as error:
            return trouble("reading", str(error), _advice(error))
        if answer["Body"].read() != _BODY:
            return trouble(
                "reading",
                f"{place} holds other bytes than were written",
                "look for a proxy or cache",
            )
        return ok("reading", "the bytes that were written")

    def _condition(self, place: S3Uri) -> Finding:
        try:
            self._put(place)
        except s3.StoreError as error:
            if error.meaning is Meaning.OUTAGE:
                return unknown("conditional writes", str(error))
            return ok("conditional writes", "If-None-Match refuses to replace an object")
        return _no_conditions("the store ignores If-None-Match")

    def _deleting(self, place: S3Uri) -> Finding:
        try:
            self._ask(place, lambda c: c.delete_object(Bucket=place.bucket, Key=place.key))
        except s3.StoreError as error:
            return trouble("deleting", f"{error}; {place} stays", _advice(error))
        return ok("deleting", f"below {self.home}")

    def _ask(self, place: S3Uri, work: Callable[[Any], Any]) -> Any:
        """Raises StoreError. Notes how far the store's clock is from this machine's."""
        before = time.time()
        with s3.typed_errors(place):
            try:
                answer = work(self.client)
            except Exception as error:
                self._note_clock(getattr(error, "response", {}), before)
                raise
        self._note_clock(answer, before)
        return answer

    def _note_clock(self, answer: Any, before: float) -> None:
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        if said := headers.get("date"):
            middle = (before + time.time()) / 2
            self._offset_s = parsedate_to_datetime(said).timestamp() - middle


def _no_conditions(found: str) -> Finding:
    return trouble(
        "conditional writes",
        f"{found}: two attempts of a job could both become its result",
        "use a store, or a version of it, that supports If-None-Match on PUT (docs/operations.md)",
    )


def _clock(offset_s: float | None) -> Finding:
    if offset_s is None:
        return unknown("clock", "the store said no time")
    found = f"{offset_s:+.0f} s from this machine's"
    if abs(offset_s) > _SKEW_S:
        make = trouble if abs(offset_s) > _REFUSED_SKEW_S / 2 else warning
        return make(
            "clock",
            f"the store's clock is {found}; S3 refuses requests beyond {_REFUSED_SKEW_S:.0f} s",
            "synchronise this machine's clock (chrony, systemd-timesyncd)",
        )
    return ok("clock", found)


def _advice(error: s3.StoreError) -> str:
    if error.s3_code == "NoSuchBucket":
        return "create the bucket (`python -m maskq.s3.bucket`), or correct MASKQ_S3_BUCKET"
    if error.s3_code == "RequestTimeTooSkewed":
        return "synchronise this machine's clock (chrony, systemd-timesyncd)"
    match error.meaning:
        case Meaning.CREDENTIALS:
            return _KEYS
        case Meaning.OUTAGE | Meaning.CONFLICT:
            return "start the store, or correct MASKQ_S3_ENDPOINT_URL"
    return _GRANT
