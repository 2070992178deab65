"""Micro-batching: one thread owns the model and runs what is ready as one batch."""
