"""How a segmenter rates its masks: which pixels are uncertain, and when float32 computes again.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from maskq.contract import FailureCode
from maskq_worker.errors import PermanentError
from maskq_worker.model.inputs_and_outputs import ModelOutput

if TYPE_CHECKING:
    from maskq_worker.model.backend import Backend


@dataclass(frozen=True, slots=True)
class Rating:
    """What a segmenter knows about the errors of a network in half precision or 8 bits."""

    # A pixel is uncertain if its best score exceeds the second by less. None: masks are not rated.
    uncertain_below: float | None = None
    # The float32 network, which computes an image again if too many pixels are uncertain. None: nothing
    # is computed again.
    exact: Backend | None = None
    max_uncertain_share: float = 1.0  # 0..1, of an image's pixels, before it is computed again

    def refuses(self, output: ModelOutput | Exception) -> bool:
        """Whether float32 must compute the image again: too many pixels are uncertain, or the scores
        are NaN or infinite."""
        if isinstance(output, Exception):
            return isinstance(output, PermanentError) and output.code is FailureCode.INTERNAL
        share = output.uncertain_share
        return share is not None and share > self.max_uncertain_share


UNRATED: Final = Rating()
