"""Parse records: from Redis' answers to the contract's types."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set

from pydantic import ValidationError

from maskq.contract import TERMINAL, JobFailure, JobRecord, JobResult, SegmentRequest
from maskq.contract.locations.output_places import STORED
from maskq.contract.locations.source import source_of


def pairs(flat: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """A hash as a dict, from a mapping or from field, value, field, value, …"""
    if isinstance(flat, Mapping):
        return dict(flat)
    return dict(zip(flat[::2], flat[1::2], strict=True))


class RawRecord:
    """A record whose fields are not validated yet."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    @property
    def ended(self) -> bool:
        return self._fields.get("status") in TERMINAL

    def parse(self) -> JobRecord:
        """Validate it. Raises pydantic's ValidationError for a record that maskq did not write."""
        return parse_record(self._fields)


class NewerRequest(ValueError):
    """The request has options or values that this version does not know; the text names the options."""


def parse_record(fields: Mapping[str, str], *, to_run: bool = False) -> JobRecord:
    """A record from its hash. Raises pydantic's ValidationError for one that maskq did not write.

    `to_run`: raises NewerRequest for what a newer client asks for. Otherwise that is left out: to
    look at a job one need not understand all of it.
    """
    plain: dict[str, object] = {
        name: value for name, value in fields.items() if name not in ("request", "result", "error")
    }
    plain["request"] = request = _request(fields["request"], to_run)
    # A record of an older version has no source.
    plain.setdefault("source", source_of(request.image_uri, request.image_version_id))
    if "result" in fields:
        plain["result"] = JobResult.model_validate_json(fields["result"])
    if "error" in fields:
        plain["error"] = JobFailure.model_validate_json(fields["error"])
    return JobRecord.model_validate(plain)


def _request(text: str, to_run: bool) -> SegmentRequest:
    asked = json.loads(text)
    newer = asked.keys() - SegmentRequest.model_fields.keys()
    try:
        return _validated(asked, newer, to_run)
    except ValidationError as error:  # a known option has a value that only a newer version knows
        values = {str(one["loc"][0]) for one in error.errors() if one["loc"]}
        return _validated(asked, newer | values, to_run)


def _validated(asked: Mapping[str, object], newer: Set[str], to_run: bool) -> SegmentRequest:
    if newer and to_run:
        raise NewerRequest(", ".join(sorted(newer)))
    known = {name: value for name, value in asked.items() if name not in newer}
    return SegmentRequest.model_validate(known, context=STORED)
