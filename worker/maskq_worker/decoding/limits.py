"""The limits of decoding one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from maskq_worker.settings import WorkerSettings

# A hanging decoder uses no CPU time; on a busy machine a good decoder gets only part of a core.
_WALL_PER_CPU_SECOND: Final = 5


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Limits for each image."""

    max_pixels: int
    max_bytes: int  # of the file
    max_scans: int  # of a JPEG
    cpu_s: int  # CPU time; enforced only in decoding processes

    @property
    def wall_s(self) -> float:
        """Seconds until a decoding process without an answer is killed."""
        return float(self.cpu_s * _WALL_PER_CPU_SECOND)

    @classmethod
    def of(cls, settings: WorkerSettings) -> DecodeLimits:
        """The limits that MASKQ_MAX_IMAGE_* and MASKQ_MAX_DECODE_CPU_S set."""
        return cls(
            settings.max_image_pixels,
            settings.max_image_bytes,
            settings.max_image_scans,
            settings.max_decode_cpu_s,
        )
