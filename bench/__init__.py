"""Measurements. Not in the wheel, and no tests: a figure is a ratio or a median within one run."""
