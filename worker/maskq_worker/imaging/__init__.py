"""From the bytes of an image file to upright sRGB pixels, or a refusal with the reason.

Imports neither torch nor the queue, so that a process that only decodes stays small.
"""

from maskq_worker.imaging.decoding import FORMATS, MAX_FRAMES, MAX_SIDE, Decoded, decode

__all__ = ["FORMATS", "MAX_FRAMES", "MAX_SIDE", "Decoded", "decode"]
