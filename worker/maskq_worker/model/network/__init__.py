"""DPT for semantic segmentation as a plain module: the scores of transformers' network in less time.

It omits what inference does not read: the auxiliary head, the last LayerNorm, the first fusion
layer's second input, all hidden states but the four that the neck reads. It rewrites what takes time,
exactly up to rounding; every rewrite is a function in `rewrites.py`. Maps lie in memory as tokens do
(`channels_last`), so neither is copied into the other's order.
"""

from __future__ import annotations

from maskq_worker.model.network.dpt import Network
from maskq_worker.model.network.supported import UnsupportedError

__all__ = ["Network", "UnsupportedError"]
