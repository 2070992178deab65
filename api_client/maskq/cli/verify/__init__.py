"""maskq verify: whether outputs are the ones that a job made.

results.py finds the result that states the digests, files.py reads outputs, checks.py compares, and
recomputation.py runs the model again.
"""

from maskq.cli.verify.command import register

__all__ = ["register"]
