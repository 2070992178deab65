"""What a source of notifications reports: an object was created or overwritten."""

from __future__ import annotations

from dataclasses import dataclass

from maskq_gateway.sources.fields import text_or_none

_NO_VERSION = "null"  # S3's version of an object that was written before versioning was enabled


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """One state of one object, as far as the store reports it."""

    bucket: str
    key: str  # as S3 knows it, nothing encoded
    version_id: str | None = None  # None: the bucket keeps no versions
    etag: str | None = None  # without quotes
    sequencer: str | None = None  # hexadecimal; greater is later, for one key
    size: int | None = None  # bytes
    when: str | None = None  # of the write, as reported; tells states apart if nothing else does

    @property
    def state(self) -> str | list[str | None]:
        """The same for every delivery of one event, another for the next write."""
        return self.version_id or [self.etag, self.sequencer or self.when]


def version_of(value: object) -> str | None:
    """A version id; None for objects of a bucket without versions."""
    version = text_or_none(value)
    return None if version == _NO_VERSION else version


def etag_of(value: object) -> str | None:
    """An ETag without its quotes."""
    etag = text_or_none(value)
    return etag.strip('"') or None if etag else None
