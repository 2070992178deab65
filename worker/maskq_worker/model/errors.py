"""Why a model cannot be served."""


class ModelError(Exception):
    """Raised while a model is found, pulled, loaded or tested: one sentence, with what to do."""
