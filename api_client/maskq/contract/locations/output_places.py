"""Checks of output_prefix and output_name, as fields of a model."""

from __future__ import annotations

from typing import Final

from pydantic import ValidationInfo

from maskq.contract.locations import MAX_KEY_BYTES, S3Uri
from maskq.contract.locations.output_names import NameTemplate
from maskq.contract.outputs import LONGEST_NAME

# Validation context of a stored record: what was accepted once is read back without today's limits.
STORED: Final = {"stored": True}
# The longest name below an output_prefix, as storage_layout.py has it: /{job id}/{token}/{file}
_BELOW_PREFIX_BYTES: Final = 1 + 36 + 1 + 16 + 1 + LONGEST_NAME
_MAX_PREFIX_BYTES: Final = MAX_KEY_BYTES - _BELOW_PREFIX_BYTES


def checked_prefix(uri: str, info: ValidationInfo) -> str:
    """The prefix in its usual form. Raises ValueError for one that is too long or no S3 URI."""
    place = S3Uri.parse(uri, key_required=False)
    if len(place.key.encode()) > _MAX_PREFIX_BYTES and info.context != STORED:
        raise ValueError(
            f"the prefix in {uri[:80]!r}… is longer than {_MAX_PREFIX_BYTES} bytes, which leaves no "
            f"room for the names of outputs"
        )
    return str(place)


def checked_name(template: str, info: ValidationInfo) -> str:
    """The template. Raises ValueError with a message for the caller."""
    return template if info.context == STORED else NameTemplate.parse(template).text
