"""Displaying a result: a self-contained HTML page, and a picture for notebooks.

It needs Pillow only, not numpy or the network. `import maskq` does not import it.
"""

from maskq.view.page import PageContent, page
from maskq.view.pictures import open_photo

__all__ = ["PageContent", "open_photo", "page"]
