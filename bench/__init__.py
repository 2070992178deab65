"""Measurements. Not in the wheel; only its arithmetic has tests: a figure is a ratio or a median within one run."""
