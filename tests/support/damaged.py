"""Files that clients submit, and that no worker can decode."""

from __future__ import annotations

from collections.abc import Iterable

from maskq import Client
from maskq.contract.ids import new_token
from maskq.contract.locations import S3Uri


def damaged(text: str = "") -> bytes:
    """The first bytes of a PNG, and some text."""
    return b"\x89PNG\r\n\x1a\n" + text.encode()


def stored(client: Client, files: Iterable[bytes]) -> list[str]:
    """Files in the store, where a client does not look into them."""
    folder = S3Uri(client.settings.s3_bucket, f"hostile/{new_token()}")
    places = []
    for number, data in enumerate(files):
        client.objects.put(folder / str(number), data, "application/octet-stream")
        places.append(str(folder / str(number)))
    return places
