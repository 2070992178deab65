"""DPT for semantic segmentation as a plain module: the scores of transformers' network for less.

Left out is what inference does not read: the auxiliary head, the last LayerNorm, the first fusion
layer's second input, all hidden states but the four that are used. Rewritten, each exact but for
rounding, is what costs time; every rewrite is a function of its own in `rewrites.py`. Maps lie in
memory as tokens do, all channels of a place together (`channels_last`), so neither is ever moved
into the other's order.
"""

from __future__ import annotations

from maskq_worker.model.network.dpt import Network
from maskq_worker.model.network.supported import UnsupportedError

__all__ = ["Network", "UnsupportedError"]
