"""Which jobs are run again with which model, and the deployment where they run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from maskq.errors import InvalidRequest
from maskq.settings import Settings

_KEPT_S: Final = 7 * 86_400.0
_MAX_QUEUED: Final = 1000
_FORM: Final = "MASKQ_SHADOW_MODEL is NAME:SHARE, for example ade20k-v2:0.05 for 5 % of the jobs"


@dataclass(frozen=True, slots=True)
class ShadowTarget:
    """The model of the second runs, and the share of the jobs, more than 0 and at most 1."""

    model: str
    share: float

    @classmethod
    def of(cls, settings: Settings) -> ShadowTarget:
        """From MASKQ_SHADOW_MODEL. Raises InvalidRequest if it is missing or has another form."""
        model, _, text = (settings.shadow_model or "").rpartition(":")
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        if not model or not 0 < share <= 1:
            raise InvalidRequest(f"{_FORM}; it is {settings.shadow_model or 'not set'}")
        return cls(model, share)

    def chooses(self, job_id: str) -> bool:
        """Whether this job is run again. The answer depends on the id alone."""
        digest = hashlib.sha256(job_id.encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.share * 2**64


def shadow_settings(settings: Settings) -> Settings:
    """The settings of the deployment of the second runs. What it stores is kept for a limited time."""
    return settings.model_copy(
        update={
            "key_prefix": f"{settings.key_prefix}-shadow",
            "output_prefix": f"{settings.output_prefix}-shadow",
            "output_retention_s": settings.output_retention_s or _KEPT_S,
            "max_queued": _MAX_QUEUED,
            "webhook_url": None,
            "default_model": None,
            "model": None,
            "model_name": None,
        }
    )
