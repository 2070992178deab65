"""Why a model cannot be served."""

from maskq.errors import MaskqError


class ModelError(MaskqError):
    """Raised while a model is found, pulled, loaded or tested: one sentence, with what to do."""
