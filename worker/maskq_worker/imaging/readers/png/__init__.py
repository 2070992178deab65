"""PNG.

- reader.py: pixels by Pillow or libpng, and the colours that chunks describe
- chunks.py: which chunks are sound, the first frame of an animation, and the rows of pixels
"""

from maskq_worker.imaging.readers.png.reader import picture

__all__ = ["picture"]
