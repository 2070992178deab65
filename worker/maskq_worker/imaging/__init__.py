"""From the bytes of an image file to upright sRGB pixels, or a refusal with the reason.

Imports neither torch nor the queue, so that a process that only decodes stays small.

- decoding.py: the way through, and what all formats have in common at its end
- formats.py: what is accepted, and how the rest is refused
- jpeg/, tiff/, png.py, bmp.py, isobmff.py, pillow_reader.py: the readers of the formats
- samples.py, pixel_modes.py: samples of any type as 8 bits
- colour.py, colour_spaces.py: by profile and by numbers to sRGB
"""

from maskq_worker.imaging.decoding import Decoded, decode
from maskq_worker.imaging.formats import FORMATS, MAX_FRAMES, MAX_SIDE

__all__ = ["FORMATS", "MAX_FRAMES", "MAX_SIDE", "Decoded", "decode"]
