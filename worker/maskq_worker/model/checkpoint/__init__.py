"""Checkpoints: where their files lie, their labels, and how their weights are loaded."""
