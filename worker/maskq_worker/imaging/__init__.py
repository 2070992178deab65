"""Decodes an image file to upright sRGB pixels, or refuses it with the reason.

Imports neither torch nor Celery, so that a process that only decodes stays small.

- decoding.py: the whole decoding of a file, with the steps that all formats share
- formats.py: the table of formats and their readers, and how other files are refused
- checks.py: size limits, errors and notes that readers share
- readers/: a reader for each format, or Pillow
- samples.py, pixel_modes.py: samples of any type as 8 bits
- colour.py, colour_spaces.py: by profile and by numbers to sRGB
"""

from maskq_worker.imaging.checks import MAX_FRAMES, MAX_SIDE
from maskq_worker.imaging.decoding import Decoded, decode
from maskq_worker.imaging.formats import FORMATS

__all__ = ["FORMATS", "MAX_FRAMES", "MAX_SIDE", "Decoded", "decode"]
