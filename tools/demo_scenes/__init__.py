"""Draws scenes with exact labels and trains the demo checkpoint. It is not part of the wheel."""
