"""A result to look at: one HTML page that needs nothing else, and what a notebook shows.

Needs Pillow, and no more: neither numpy nor the network. Nothing here is imported by `import maskq`.
"""

from maskq.view.page import Shown, page
from maskq.view.pictures import open_photo

__all__ = ["Shown", "open_photo", "page"]
