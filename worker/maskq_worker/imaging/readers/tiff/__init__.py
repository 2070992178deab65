"""TIFF by tifffile and imagecodecs.

- reader.py: which page is shown
- segments.py: its tags, checked, and its samples, strip by strip or tile by tile
- fax.py, lzw.py: two codings whose decoders need care
- colours.py: its samples as a picture
"""

from maskq_worker.imaging.readers.tiff.reader import picture

__all__ = ["picture"]
