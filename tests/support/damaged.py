"""Files that clients submit, and that no worker can decode."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from maskq.contract.ids import new_token
from maskq.contract.locations import S3Uri

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server


def damaged(text: str = "") -> bytes:
    """The first bytes of a PNG, and some text."""
    return b"\x89PNG\r\n\x1a\n" + text.encode()


def stored(server: S3Server, files: Iterable[bytes]) -> list[str]:
    """Files in the store, where a client does not look into them."""
    folder, store = S3Uri(server.bucket, f"hostile/{new_token()}"), server.client()
    places = []
    for number, data in enumerate(files):
        store.put_object(Bucket=folder.bucket, Key=(folder / str(number)).key, Body=data)
        places.append(str(folder / str(number)))
    return places
