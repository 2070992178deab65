"""The HTTP API: jobs, batches, outputs, events and models, for callers with an API key."""

from maskq_gateway.api.application import add_api

__all__ = ["add_api"]
