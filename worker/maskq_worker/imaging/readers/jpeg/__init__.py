"""JPEG by libjpeg-turbo.

- layout.py: markers, scans and the end of the image, without decoding it
- reader.py: its pixels, and whether any are missing
"""

from maskq_worker.imaging.readers.jpeg.reader import check_pixels, check_process, picture

__all__ = ["check_pixels", "check_process", "picture"]
