"""Measurements. A figure is a ratio or a median within one run. Not in the wheel."""
