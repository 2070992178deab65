"""Segmenting the image of a result again, with a model on this machine.

The package of the worker does it: its entry point in the group `maskq.recompute`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import TypeAlias, cast

from maskq.cli.verify.checks import Check, compared
from maskq.cli.verify.results import Results, StatedResult
from maskq.contract import Output
from maskq.contract.jobs import Manifest
from maskq.contract.locations import S3Uri, is_url
from maskq.contract.locations.source import NO_VERSION
from maskq.contract.outputs import sha256_of
from maskq.errors import InvalidRequest
from maskq.extras import NotInstalled, require

# Takes a manifest and the bytes of its image. Returns output → file name → bytes.
Recompute: TypeAlias = Callable[[Manifest, bytes], Mapping[Output, Mapping[str, bytes]]]

_GROUP = "maskq.recompute"
_COMMAND = "maskq verify --recompute"


def image_of(stated: StatedResult, results: Results) -> bytes:
    """The image, read where the job read it. Raises InvalidRequest, StoreUnavailable."""
    manifest = stated.manifest
    uri = str(manifest.request.get("image_uri", ""))
    if not uri:
        raise InvalidRequest(f"{stated.name} does not say where the image is; give --image FILE")
    if is_url(uri):
        raise InvalidRequest(
            f"the image was read from the URL {uri}, whose secret is not kept; give --image FILE"
        )
    place = S3Uri.parse(uri)
    version_id = manifest.source_version_id
    return results.objects().get(place, version_id=None if version_id == NO_VERSION else version_id)


def recomputed(stated: StatedResult, image: bytes, digest: str | None) -> Sequence[Check]:
    """Compare what the model makes of the image now with a result.

    digest: the SHA-256 of the only output to compare; None: all outputs.
    Raises InvalidRequest if the image or the model is another one.
    """
    manifest = stated.manifest
    found = hashlib.sha256(image).hexdigest()
    if found != manifest.source_sha256:
        raise InvalidRequest(
            f"this is not the image that was segmented ({manifest.source}): its SHA-256 is {found}, "
            f"{stated.name} states {manifest.source_sha256}; give the image with --image FILE"
        )
    expected = {
        output: each
        for output, each in manifest.output_sha256.items()
        if digest in (None, each) and isinstance(output, Output)
    }
    if not expected:
        raise InvalidRequest(f"no output in {stated.name} has the SHA-256 {digest}")
    made = _recompute()(manifest, image)
    return [
        compared(output, "recomputed", each, _digest(output, made[output]), stated_by=stated.name)
        for output, each in expected.items()
    ]


def _digest(output: Output, files: Mapping[str, bytes]) -> str:
    digests = {name: hashlib.sha256(body).hexdigest() for name, body in files.items()}
    return sha256_of(output, digests)


def _recompute() -> Recompute:
    require("worker", _COMMAND)
    for entry in entry_points(group=_GROUP):
        return cast("Recompute", entry.load())
    raise NotInstalled(f"{_COMMAND} finds no worker package; install maskq again")
