"""Errors of the batcher."""


class BatcherClosed(RuntimeError):
    """The batcher takes no items, or was closed before it ran this one."""
